"""What a device kernel does to a vector between its sum and memory: residual add, activation. The meaning is that of
`pcc.codegen.kernels.epilogue.Epilogue`, but that what is clamped may turn a NaN into a bound (OpenCL's fmin and
fmax)."""

from typing import TYPE_CHECKING

from pcc.codegen.kernels.epilogue import Epilogue
from pcc.errors import PccError
from pcc.ir.activation import Activation

if TYPE_CHECKING:
    from pcc.codegen.opencl.builder import DeviceKernelBuilder, Expr


def apply(k: "DeviceKernelBuilder", epilogue: Epilogue, value: "Expr", residual: "Expr | None") -> "Expr":
    """The vector to store. ``value`` has the bias."""
    if residual is not None:
        value = value + residual
    return activate(k, epilogue.activation, value)


def activate(k: "DeviceKernelBuilder", activation: Activation, x: "Expr") -> "Expr":
    """The activation of a vector."""
    args = [k.splat(float(value)) for value in activation.args]
    match activation.kind:
        case "none":
            return x
        case "relu":
            return k.call("fmax", x, k.splat(0.0))
        case "clip":
            return k.call("fmin", k.call("fmax", x, args[0]), args[1])
        case "leaky_relu":
            return k.mad(k.call("fmin", x, k.splat(0.0)), args[0], k.call("fmax", x, k.splat(0.0)))
        case "hardsigmoid":
            return _hardsigmoid(k, x)
        case "hardswish":
            x = k.let(x)
            return x * _hardsigmoid(k, x)
        case "sigmoid":
            return _sigmoid(k, x)
        case "silu":
            x = k.let(x)
            return x * _sigmoid(k, x)
        case "tanh":
            return k.call("tanh", x)
        case "gelu":
            x = k.let(x)
            return x * k.mad(k.call("erf", x * k.splat(0.7071067811865476)), k.splat(0.5), k.splat(0.5))
        case kind:
            raise PccError(f"no GPU code for activation '{kind}': add it to pcc/codegen/opencl/kernels/epilogue.py")


def _hardsigmoid(k: "DeviceKernelBuilder", x: "Expr") -> "Expr":
    bounded = k.call("fmin", k.call("fmax", x + k.splat(3.0), k.splat(0.0)), k.splat(6.0))
    return bounded * k.splat(1 / 6)


def _sigmoid(k: "DeviceKernelBuilder", x: "Expr") -> "Expr":
    return k.splat(1.0) / (k.splat(1.0) + k.call("exp", k.splat(0.0) - x))
