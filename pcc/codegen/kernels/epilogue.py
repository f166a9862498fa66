"""What a kernel does to a value between its accumulator and memory: bias, residual add, activation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels import math
from pcc.codegen.layers import Conv2d, Linear
from pcc.dtype import FLOAT32
from pcc.errors import PccError
from pcc.ir.activation import IDENTITY, Activation

if TYPE_CHECKING:
    from pcc.codegen.builder import Expr, KernelBuilder


@dataclass(frozen=True)
class Epilogue:
    """``activation(value + bias + residual)``. The bias is always there (zeros cost nothing); the residual only if
    ``residual``, and the parameter of each channel only if the activation has one."""

    residual: bool = False
    activation: Activation = IDENTITY

    @property
    def symbol(self) -> str:
        """Part of a kernel's C name."""
        return ("add_" if self.residual else "") + self.activation.symbol

    @property
    def params(self) -> tuple[Param, ...]:
        """What each channel has of its own, as `channel_arrays` has it."""
        return Param("bias", "f32*"), *((Param("parameter", "f32*"),) if self.activation.is_parametric else ())

    def parameter(self, k: "KernelBuilder", at: "Expr", lanes: int = 1) -> "Expr | None":
        """The parameter of the channel at that place of ``parameter``, or of ``lanes`` of them; None where the
        activation has none."""
        return k.let(k.load(k["parameter"], at, lanes)) if self.activation.is_parametric else None

    def apply(
        self, k: "KernelBuilder", value: "Expr", residual: "Expr | None", lanes: int, parameter: "Expr | None" = None
    ) -> "Expr":
        """The value to store. ``value`` already has the bias (accumulators start from it); both are vectors of
        ``lanes`` (or scalars for 1), and so is ``parameter``, or the one number of all lanes."""
        if self.residual:
            value = value + residual
        return activate(k, self.activation, value, lanes, parameter)

    def reference(
        self, value: np.ndarray, residual: np.ndarray | None, parameter: np.ndarray | None = None
    ) -> np.ndarray:
        if self.residual and residual is not None:
            value = value + residual
        of_channels = None if parameter is None else torch.from_numpy(np.ascontiguousarray(parameter))
        return self.activation(torch.from_numpy(np.ascontiguousarray(value)), of_channels).numpy()

    def reference_parameter(self, args: Mapping[str, Argument], at: Any) -> np.ndarray | None:
        """`parameter` on numpy."""
        return np.asarray(np.asarray(args["parameter"])[at]) if self.activation.is_parametric else None


def channel_arrays(
    layer: Conv2d | Linear, arranged: Callable[[np.ndarray], np.ndarray] = lambda values: values
) -> dict[str, np.ndarray]:
    """The values of `Epilogue.params`, (O,) unless they are ``arranged`` otherwise."""
    bias = np.zeros(layer.weight.shape[0], np.float32) if layer.bias is None else layer.bias
    return {
        "bias": arranged(bias),
        **({} if layer.parameter is None else {"parameter": arranged(layer.parameter)}),
    }


def activate(
    k: "KernelBuilder", activation: Activation, x: "Expr", lanes: int, parameter: "Expr | None" = None
) -> "Expr":
    """The activation of a vector of ``lanes`` values (or a scalar for 1) as a TIR expression without calls; a NaN stays
    a NaN."""
    if activation.kind == "none":
        return x
    if parameter is not None:
        vector = parameter if parameter.ty.dtype.lanes == lanes else k.splat(parameter, lanes)
        return PARAMETRIC_CODE[activation.kind](k, k.let(x), vector, lanes)
    if activation.kind not in _CODE:
        raise PccError(f"no kernel code for activation '{activation}': add it to pcc/codegen/kernels/epilogue.py")
    if activation.kind in _IN_TYPE or k.real == FLOAT32:
        return _CODE[activation.kind](k, k.let(x), lanes, *map(k.real.nearest, activation.args))
    with k.computing_in(FLOAT32):
        wide = _CODE[activation.kind](k, k.let(k.converted(x, FLOAT32)), lanes, *activation.args)
    return k.converted(wide, k.real)


def _swish(k: "KernelBuilder", x: "Expr", beta: "Expr", lanes: int) -> "Expr":
    if k.real == FLOAT32:
        return x * math.sigmoid(k, x * beta, lanes)
    with k.computing_in(FLOAT32):
        wide, gate = (k.let(k.converted(value, FLOAT32)) for value in (x, beta))
        product = wide * math.sigmoid(k, wide * gate, lanes)
    return k.converted(product, k.real)


PARAMETRIC_CODE: dict[str, Callable[..., "Expr"]] = {
    "prelu": lambda k, x, slope, lanes: math.select(k, x < math.constant(k, 0.0, lanes), x * slope, x),
    "swish": _swish,
    "max": lambda k, x, least, _: math.maximum(k, x, least),
    "min": lambda k, x, largest, _: math.minimum(k, x, largest),
}
"""Kind: its code, from a bound value, the parameter and the lanes."""


def _relu(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    return math.clamp(k, x, 0.0, float("inf"), lanes)


def _clip(k: "KernelBuilder", x: "Expr", lanes: int, low: float, high: float) -> "Expr":
    return math.clamp(k, x, low, high, lanes)


def _leaky_relu(k: "KernelBuilder", x: "Expr", lanes: int, slope: float) -> "Expr":
    return math.select(k, x < math.constant(k, 0.0, lanes), x * math.constant(k, slope, lanes), x)


def _hardsigmoid(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    return math.clamp(k, x + math.constant(k, 3.0, lanes), 0.0, 6.0, lanes) * math.constant(k, 1 / 6, lanes)


def _hardswish(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    return x * _hardsigmoid(k, x, lanes)


def _silu(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    return x * math.sigmoid(k, x, lanes)


_CODE: dict[str, Callable[..., "Expr"]] = {
    "relu": _relu,
    "clip": _clip,
    "leaky_relu": _leaky_relu,
    "hardsigmoid": _hardsigmoid,
    "hardswish": _hardswish,
    "sigmoid": math.sigmoid,
    "silu": _silu,
    "tanh": math.tanh,
    "gelu": math.gelu,
    "softplus": math.softplus,
}
"""Kind: its code, from a bound value, the lanes and the activation's arguments."""

_IN_TYPE = ("relu", "clip", "leaky_relu")
"""Those that are computed in whatever type the kernel computes in: at most one operation rounds. The others are
computed in fp32, and rounded once."""
