"""How a network of one kind is written."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

Made = tuple[nn.Module, tuple[int, ...] | tuple[Tensor, ...]]
"""A network, and its inputs or the shape of the only one."""


class Net(nn.Module):
    """Parts by name, and what is computed with them."""

    def __init__(self, forward: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)
