"""What the sparse linear kernels share: a weight that is read once, from one end to the other, while inputs and sums
stay near."""

from pcc.codegen.layers import Linear
from pcc.codegen.machine import Machine, Work
from pcc.sparsity.csr import Csr

AHEAD = 4096
"""Bytes by which weights are asked for before they are used. What the kernels load in between fills the queue of loads,
so that the processor's own look-ahead stops short: without it a layer 4096 -> 4096 with 30 % of its weights takes 1.5
times as long (Intel Xeon of family 6, model 207)."""


def csr_of(layer: Linear) -> Csr:
    """The layer's weight, which is packed."""
    assert isinstance(layer.weight, Csr)
    return layer.weight


def memory_work(nbytes: int, machine: Machine) -> Work:
    """A weight of so many bytes read once, from behind the L2 cache if it does not fit there."""
    return Work(beyond=nbytes / machine.isa.vector_bytes) if nbytes > machine.l2_bytes else Work()
