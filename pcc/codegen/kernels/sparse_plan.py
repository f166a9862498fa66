"""How a sparse convolution is computed, and what it costs: tiles, blocks, and the cost model that picks them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pcc.codegen.kernels.sparse_tables import parts_of
from pcc.errors import PccError
from pcc.sparsity.fkw import FKW, places


@dataclass(frozen=True)
class SparsePlan:
    """The form of the kernel, its tile, and how many filters an item takes."""

    form: Literal["scatter", "gather"]
    size: int
    """Positions of a tile, a multiple of the vector's lanes."""
    block: int
    """Filters (scatter) or filter groups (gather) of an item."""
    most_taps: int
    """Taps of a kernel that are taken at a time."""
    room: int = 0
    """Filters whose accumulators a scatter kernel has room for, at least ``block``."""


@dataclass(frozen=True)
class Machine:
    """What plans depend on. Costs are in units of one vector multiply-add at full speed.

    With 16 lanes they are fitted to a Zen 4 core (best times of layers of VGG-16 and ResNet-50, 4 to 12 patterns, groups of 1, 2 and 4), with 8 lanes
    to the same core with half vectors. With 4 lanes (NEON) they are executed instructions, of the inner loops as compiled and fitted for the rest to
    counts of whole layers (`tools/count_arm64/forms.py`; all plans of 3x3 and 1x1 layers of 64 to 512 channels, 4 and 9 taps, groups of 1, 2 and 4): the
    plan chosen executes at most 5 % more than the best one. A multiply-add of the dense kernel takes 1.44 of them, so a sparse kernel has to win by
    more than it may cost in time: llvm-mca gives 0.5 cycles a multiply-add for dense and gather, 0.63 for scatter on neoverse-n1; on cortex-a55 1.7
    for dense, 3.1 for scatter, and 4.3, 2.0 and 1.3 for gather with groups of 1, 2 and 4.
    """

    inputs: int
    """Registers for the inputs of a scatter kernel."""
    sums: int
    """Registers for the accumulators of a gather kernel."""
    sums_bytes: int
    """Accumulators of a scatter kernel in L1."""
    scatter_kernel: float
    """A kernel of one filter: its place, and the end of the loop."""
    scatter_update: float
    """Taking one accumulator vector from L1 and putting it back ..."""
    scatter_multiply: float
    """... and a multiply-add in between, with its share of weights."""
    scatter_least: float
    """The least that an accumulator vector takes however few the multiply-adds."""
    chain: float
    """What the latency of one accumulator's multiply-adds costs where only a few kernels are in flight: this much a tap, and for two taps more."""
    segment: float
    """A segment: its tables and the branch at its end ..."""
    segment_load: float
    """... and each input vector."""
    gather_multiply: float
    gather_load: float
    """An input vector of a gather kernel; they cross cache lines and come from L2."""
    gather_weight: float
    """A weight of a gather kernel."""
    gather_kernel: float = 2.0
    """A kernel of a filter group: its channel, and the end of the loop."""
    store: float = 8.0
    """Starting and storing a filter's tile ..."""
    store_vector: float = 3.0
    """... and each vector of it."""


MACHINES = {
    16: Machine(20, 16, 24 << 10, 1.3, 0.4, 1.35, 6.0, 1.0, 12.0, 0.8, gather_multiply=0.75, gather_load=2.6, gather_weight=0.7),
    8: Machine(9, 8, 16 << 10, 4.0, 0.0, 1.45, 4.0, 2.0, 16.0, 1.0, gather_multiply=1.0, gather_load=3.0, gather_weight=1.0),
    4: Machine(20, 16, 16 << 10, 5.0, 1.0, 1.05, 0.0, 1.0, 24.0, 3.5, 1.0, 0.5, 0.5, gather_kernel=4.0, store=24.0, store_vector=8.0),
}
"""By the lanes of a vector."""

MOST_GATHER_TAPS = 9
"""Kernels of more taps are cut, so that the code of a gather kernel stays small."""

GATHER_ITEM = 1 << 14
"""Vector multiply-adds in an item of a gather kernel, about."""


def choose_plan(fkw: FKW, positions: int, lanes: int) -> tuple[SparsePlan, float]:
    """The cheapest plan for planes of that many flat positions, and its cost for one image in units of `Machine`."""
    if lanes not in MACHINES:
        raise PccError(f"sparse convolution has no plans for vectors of {lanes} lanes: add a row to MACHINES in pcc/codegen/kernels/sparse_plan.py")
    machine = MACHINES[lanes]
    group, pattern = places(fkw)
    priced = []
    for plan in _plans(fkw, positions, lanes, machine):
        vectors, tiles = plan.size // lanes, -(-positions // plan.size)
        cost = _scatter_cost(plan, fkw, group, pattern, vectors, machine) if plan.form == "scatter" else _gather_cost(plan, fkw, vectors, machine)
        priced.append((plan, tiles * (fkw.shape[0] * (machine.store + machine.store_vector * vectors) + cost)))
    return min(priced, key=lambda pair: pair[1])


def _plans(fkw: FKW, positions: int, lanes: int, machine: Machine) -> Iterator[SparsePlan]:
    filters = fkw.shape[0]
    vectors_of_plane = -(-positions // lanes)  # wider tiles would read past the slack after a tensor
    for vectors in range(1, min(4, vectors_of_plane) + 1):
        room = machine.sums_bytes // (4 * vectors * lanes)
        block = -(-filters // -(-filters // room))
        yield SparsePlan("scatter", vectors * lanes, block, machine.inputs // vectors, room)
    groups = filters // fkw.group
    for vectors in (1, 2, 3, 4, 8, 12, 16):
        if vectors * fkw.group <= machine.sums and vectors <= vectors_of_plane:
            work = max(1.0, fkw.weight.size * vectors / groups)
            yield SparsePlan("gather", vectors * lanes, min(groups, max(1, round(GATHER_ITEM / work))), MOST_GATHER_TAPS)


def _scatter_cost(plan: SparsePlan, fkw: FKW, group: np.ndarray, pattern: np.ndarray, vectors: int, machine: Machine) -> float:
    """One tile of one image, without its stores."""
    parts, taps = parts_of(fkw.patterns.shape[1], plan.most_taps)
    blocks, channels, patterns = -(-fkw.shape[0] // plan.block), fkw.shape[1] * fkw.groups, len(fkw.patterns)
    used = np.zeros((blocks, channels, patterns), bool)
    for member in range(fkw.group):  # a block may end inside a filter group
        used[(group * fkw.group + member) // plan.block, fkw.index, pattern] = True
    kernel = machine.scatter_kernel + vectors * max(machine.scatter_least, machine.scatter_update + machine.scatter_multiply * taps)
    kernel = max(kernel, machine.chain * (taps + 2))
    return parts * (int(used.sum()) * (machine.segment + machine.segment_load * taps * vectors) + len(fkw.index) * fkw.group * kernel)


def _gather_cost(plan: SparsePlan, fkw: FKW, vectors: int, machine: Machine) -> float:
    """One tile of one image, without its stores."""
    parts, taps = parts_of(fkw.patterns.shape[1], plan.most_taps)
    kernel = taps * (vectors * (machine.gather_load + machine.gather_multiply * fkw.group) + machine.gather_weight * fkw.group) + machine.gather_kernel
    return parts * len(fkw.index) * kernel
