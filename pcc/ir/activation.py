"""Activations as text that is printed, parsed and fused: ``none``, ``relu``, ``clip(0,6)``, ``leaky_relu(0.1)``,
``hardswish``, ``softplus(1,20)``, ..."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pcc.errors import PccError

_REFERENCE: dict[str, tuple[int, Callable[..., torch.Tensor]]] = {
    "none": (0, lambda x: x),
    "relu": (0, F.relu),
    "clip": (2, torch.clamp),
    "leaky_relu": (1, F.leaky_relu),
    "hardswish": (0, F.hardswish),
    "hardsigmoid": (0, F.hardsigmoid),
    "silu": (0, F.silu),
    "sigmoid": (0, torch.sigmoid),
    "tanh": (0, torch.tanh),
    "gelu": (0, F.gelu),
    "softplus": (2, F.softplus),
}
"""Name: number of arguments, meaning."""


LARGEST = float(torch.finfo(torch.float32).max)
"""Beyond it a number is no fp32 number."""


def number(value: float) -> str:
    """The shortest text that reads back as the same float, without a trailing ``.0``."""
    return repr(float(value)).removesuffix(".0")


@dataclass(frozen=True)
class Activation:
    """An activation function with its arguments; ``str`` gives the text that `parse` reads."""

    kind: str = "none"
    args: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in _REFERENCE or len(self.args) != _REFERENCE[self.kind][0]:
            raise PccError(f"unknown activation '{self}': choose one of {', '.join(_REFERENCE)}")
        if not all(abs(arg) <= LARGEST for arg in self.args):
            raise PccError(f"activation '{self}': its arguments must be fp32 numbers, finite ones")

    def __str__(self) -> str:
        return f"{self.kind}({','.join(map(number, self.args))})" if self.args else self.kind

    @property
    def symbol(self) -> str:
        """The activation as part of a C name: ``clip_0_6``."""
        return re.sub(
            r"[^a-z0-9_]",
            "_",
            "_".join([self.kind, *(number(a).replace("-", "m").replace(".", "p") for a in self.args)]),
        )

    @staticmethod
    def parse(text: str) -> "Activation":
        match = re.fullmatch(r"(\w+)(?:\(([^)]*)\))?", text.strip())
        if match is None:
            raise PccError(f"unknown activation '{text}'")
        return Activation(match[1], tuple(float(a) for a in match[2].split(",")) if match[2] else ())

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The meaning, in PyTorch."""
        return _REFERENCE[self.kind][1](x, *self.args)


IDENTITY = Activation()


def activation_arity(kind: str) -> int | None:
    """How many arguments an activation takes besides its input; None if there is no such activation."""
    return _REFERENCE[kind][0] if kind in _REFERENCE else None
