"""What a device kernel does to a vector between its sum and memory: residual add, activation. The meaning is that of
`pcc.codegen.kernels.epilogue.Epilogue`, but that what is clamped may turn a NaN into a bound (OpenCL's fmin and
fmax)."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pcc.codegen.kernels.epilogue import Epilogue
from pcc.errors import PccError
from pcc.ir.activation import Activation

if TYPE_CHECKING:
    from pcc.codegen.opencl.builder import DeviceKernelBuilder, Expr


def apply(
    k: "DeviceKernelBuilder",
    epilogue: Epilogue,
    value: "Expr",
    residual: "Expr | None",
    parameter: "Expr | None" = None,
) -> "Expr":
    """The vector to store. ``value`` has the bias; ``parameter`` is the channels', a vector, too, for activations that
    have one."""
    if residual is not None:
        value = value + residual
    return activate(k, epilogue.activation, value, parameter)


def parameter_at(k: "DeviceKernelBuilder", epilogue: Epilogue, place: "Expr") -> "Expr | None":
    """The parameter of the channel at a place of ``parameter``, a number; None where the activation has none."""
    return k.let(k.load(k["parameter"], place)) if epilogue.activation.is_parametric else None


def activate(k: "DeviceKernelBuilder", activation: Activation, x: "Expr", parameter: "Expr | None" = None) -> "Expr":
    """The activation of a vector."""
    if activation.kind == "none":
        return x
    if parameter is not None:
        return _PARAMETRIC_CODE[activation.kind](k, k.let(x), parameter)
    if activation.kind not in _CODE:
        raise PccError(f"no GPU code for activation '{activation}': add it to pcc/codegen/opencl/kernels/epilogue.py")
    return _CODE[activation.kind](k, k.let(x), *(k.splat(k.arithmetic.nearest(value)) for value in activation.args))


def _relu(k: "DeviceKernelBuilder", x: "Expr") -> "Expr":
    return k.call("fmax", x, k.splat(0.0))


def _clip(k: "DeviceKernelBuilder", x: "Expr", low: "Expr", high: "Expr") -> "Expr":
    return k.call("fmin", k.call("fmax", x, low), high)


def _leaky_relu(k: "DeviceKernelBuilder", x: "Expr", slope: "Expr") -> "Expr":
    return k.mad(k.call("fmin", x, k.splat(0.0)), slope, _relu(k, x))


def _hardsigmoid(k: "DeviceKernelBuilder", x: "Expr") -> "Expr":
    return _clip(k, x + k.splat(3.0), k.splat(0.0), k.splat(6.0)) * k.splat(1 / 6)


def _hardswish(k: "DeviceKernelBuilder", x: "Expr") -> "Expr":
    return x * _hardsigmoid(k, x)


def _sigmoid(k: "DeviceKernelBuilder", x: "Expr") -> "Expr":
    return k.splat(1.0) / (k.splat(1.0) + k.call("exp", k.splat(0.0) - x))


def _silu(k: "DeviceKernelBuilder", x: "Expr") -> "Expr":
    return x * _sigmoid(k, x)


def _tanh(k: "DeviceKernelBuilder", x: "Expr") -> "Expr":
    return k.call("tanh", x)


def _softplus(k: "DeviceKernelBuilder", x: "Expr", beta: "Expr", threshold: "Expr") -> "Expr":
    """``x`` beyond the threshold, as PyTorch has it."""
    scaled = k.let(x * beta)
    small = k.call("log1p", k.call("exp", k.splat(0.0) - k.call("fabs", scaled)))
    smooth = k.let((_relu(k, scaled) + small) / beta)
    return k.call("select", smooth, x, k.call("isgreater", scaled, threshold))


def _gelu(k: "DeviceKernelBuilder", x: "Expr") -> "Expr":
    return x * k.mad(k.call("erf", x * k.splat(0.5**0.5)), k.splat(0.5), k.splat(0.5))


def _swish(k: "DeviceKernelBuilder", x: "Expr", beta: "Expr") -> "Expr":
    return x * _sigmoid(k, x * beta)


def _largest(k: "DeviceKernelBuilder", x: "Expr", least: "Expr") -> "Expr":
    return k.call("fmax", x, least)


def _smallest(k: "DeviceKernelBuilder", x: "Expr", largest: "Expr") -> "Expr":
    return k.call("fmin", x, largest)


_PARAMETRIC_CODE: dict[str, Callable[..., "Expr"]] = {
    "prelu": _leaky_relu,
    "swish": _swish,
    "max": _largest,
    "min": _smallest,
}
"""Kind: its code, from a bound vector and the channels' parameter."""

_CODE: dict[str, Callable[..., "Expr"]] = {
    "relu": _relu,
    "clip": _clip,
    "leaky_relu": _leaky_relu,
    "hardsigmoid": _hardsigmoid,
    "hardswish": _hardswish,
    "sigmoid": _sigmoid,
    "silu": _silu,
    "tanh": _tanh,
    "gelu": _gelu,
    "softplus": _softplus,
}
"""Kind: its code, from a bound vector and the activation's arguments as vectors."""
