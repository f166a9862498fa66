"""Elementary functions as TIR expressions over vectors or scalars of fp32: no calls, so that objects stay without undefined symbols."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pcc.codegen.builder import Expr, KernelBuilder


def constant(k: "KernelBuilder", value: float, lanes: int) -> "Expr":
    """A number as a vector of ``lanes`` (a scalar for 1)."""
    from tvm import tirx

    return k.splat(value, lanes) if lanes > 1 else tirx.const(value, "float32")


def maximum(k: "KernelBuilder", a: "Expr", b: "Expr") -> "Expr":
    """The larger of two values in one instruction. A NaN in ``b`` stays a NaN on every instruction set; one in ``a`` only on some."""
    from tvm import tirx

    return tirx.call_llvm_pure_intrin(b.ty, "llvm.maximum", a, b) if k.isa.nan_from_either else tirx.Max(a, b)


def minimum(k: "KernelBuilder", a: "Expr", b: "Expr") -> "Expr":
    """The smaller of two values, as `maximum`."""
    from tvm import tirx

    return tirx.call_llvm_pure_intrin(b.ty, "llvm.minimum", a, b) if k.isa.nan_from_either else tirx.Min(a, b)


def clamp(k: "KernelBuilder", x: "Expr", low: float, high: float, lanes: int) -> "Expr":
    """``min(high, max(low, x))``; infinite bounds cost nothing and a NaN stays a NaN."""
    if low != float("-inf"):
        x = maximum(k, constant(k, low, lanes), x)
    return minimum(k, constant(k, high, lanes), x) if high != float("inf") else x


def where_negative(k: "KernelBuilder", x: "Expr", then: "Expr", otherwise: "Expr", lanes: int) -> "Expr":
    """``then`` in the lanes where ``x < 0``, else ``otherwise``."""
    from tvm import tirx

    return tirx.Select(tirx.LT(x, constant(k, 0.0, lanes)), then, otherwise)
