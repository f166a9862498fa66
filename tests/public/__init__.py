"""Networks as their users write them, small: one of each kind that people bring, with its operators and its tricks."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.nets import settle
from tests.public import attention, blocks, decoders, dynamic, families, geometry, heads, matching, sequences, tokens
from tests.public.net import Made

KINDS: dict[str, Callable[[], Made]] = {
    kind.__name__: kind
    for family in (attention, decoders, sequences, blocks, families, heads, geometry, tokens, dynamic, matching)
    for kind in family.KINDS
}
"""Name: what makes the network."""


def make(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """One of the networks, and inputs for it."""
    torch.manual_seed(1)
    module, taken = KINDS[name]()
    module = settle(module)
    return module, (torch.randn(taken),) if isinstance(taken[0], int) else taken  # type: ignore[return-value]
