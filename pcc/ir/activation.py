"""Activations as text that is printed, parsed and fused: ``none``, ``relu``, ``clip(0,6)``, ``leaky_relu(0.1)``,
``hardswish``, ``softplus(1,20)``, ...; ``prelu``, ``swish``, ``max`` and ``min`` have a parameter for each channel."""

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

PARAMETRIC: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "prelu": lambda x, slope: torch.where(x < 0, x * slope, x),
    "swish": lambda x, beta: x * torch.sigmoid(x * beta),
    "max": torch.maximum,
    "min": torch.minimum,
}
"""Activations with a tensor of parameters beside the input: the slope where the input is negative (He et al., 2015),
the steepness of the gate (Ramachandran et al., 2017), the least or largest value."""


LARGEST = float(torch.finfo(torch.float32).max)
"""Beyond it a number is no fp32 number."""


def number(value: float) -> str:
    """The shortest text that reads back as the same float, without a trailing ``.0``."""
    return repr(float(value)).removesuffix(".0")


def activation_arity(kind: str) -> int | None:
    """How many numbers an activation takes besides its input; None if there is no such activation."""
    return 0 if kind in PARAMETRIC else _REFERENCE[kind][0] if kind in _REFERENCE else None


@dataclass(frozen=True)
class Activation:
    """An activation function with its arguments; ``str`` gives the text that `parse` reads."""

    kind: str = "none"
    args: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if activation_arity(self.kind) != len(self.args):
            raise PccError(f"unknown activation '{self}': choose one of {', '.join([*_REFERENCE, *PARAMETRIC])}")
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

    @property
    def is_parametric(self) -> bool:
        """Whether it takes a tensor of parameters."""
        return self.kind in PARAMETRIC

    def __call__(self, x: torch.Tensor, parameter: torch.Tensor | None = None) -> torch.Tensor:
        """The meaning, in PyTorch; ``parameter`` broadcasts to ``x``. `PccError` where it is missing, or there without
        need."""
        if (parameter is not None) != self.is_parametric:
            raise PccError(f"activation '{self}' with{'out' if parameter is None else ''} a parameter for each channel")
        return _REFERENCE[self.kind][1](x, *self.args) if parameter is None else PARAMETRIC[self.kind](x, parameter)


IDENTITY = Activation()
