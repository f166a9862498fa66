"""What a kernel does to a value between its accumulator and memory: bias, residual add, activation."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pcc.codegen.kernels import math
from pcc.ir.activation import IDENTITY, Activation

if TYPE_CHECKING:
    from pcc.codegen.builder import Expr, KernelBuilder


@dataclass(frozen=True)
class Epilogue:
    """``activation(value + bias + residual)``. The bias is always there (zeros cost nothing); the residual only if ``residual``."""

    residual: bool = False
    activation: Activation = IDENTITY

    @property
    def symbol(self) -> str:
        """Part of a kernel's C name."""
        return ("add_" if self.residual else "") + self.activation.symbol

    def apply(self, k: "KernelBuilder", value: "Expr", residual: "Expr | None", lanes: int) -> "Expr":
        """The value to store. ``value`` already has the bias (accumulators start from it); both are vectors of ``lanes`` (or scalars for 1)."""
        if self.residual:
            value = value + residual
        return activate(k, self.activation, value, lanes)

    def reference(self, value: np.ndarray, residual: np.ndarray | None) -> np.ndarray:
        if self.residual and residual is not None:
            value = value + residual
        return self.activation(torch.from_numpy(np.ascontiguousarray(value))).numpy()


def activate(k: "KernelBuilder", activation: Activation, x: "Expr", lanes: int) -> "Expr":
    """The activation of a vector of ``lanes`` values (or a scalar for 1) as a TIR expression without calls; a NaN stays a NaN."""
    match activation.kind, activation.args:
        case "none", ():
            return x
        case "relu", ():
            return math.clamp(k, x, 0.0, float("inf"), lanes)
        case "clip", (low, high):
            return math.clamp(k, x, low, high, lanes)
        case "leaky_relu", (slope,):
            x = k.let(x)
            return math.where_negative(k, x, x * math.constant(k, slope, lanes), x, lanes)
        case _:
            raise NotImplementedError(activation.kind)
