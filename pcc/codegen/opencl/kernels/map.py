"""Fused elementwise chains over operands that broadcast, and what is one of them: copies, fills and conversions of
strided tensors. An item is a number of the result."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels.nest import broadcast_strides, nest_of
from pcc.codegen.opencl.kernels.epilogue import activate
from pcc.codegen.opencl.kernels.numbers import (
    elements,
    numbers,
    of_numbers,
    place,
    symbol_of,
    tensor,
    whole_numbers,
)
from pcc.codegen.opencl.work_group import range_over
from pcc.codegen.program import View
from pcc.codegen.range import Range
from pcc.dtype import FLOAT32, DType
from pcc.errors import PccError
from pcc.ir.activation import Activation
from pcc.ir.expression import Call, Expr, Literal, Operand, as_activation, evaluate, parse

if TYPE_CHECKING:
    from pcc.codegen.opencl.builder import DeviceKernelBuilder
    from pcc.codegen.opencl.builder import Expr as Value
    from pcc.codegen.opencl.program import DeviceProgramBuilder

COPY = "x0"
"""The expression of a copy."""


def emit_map(name: str, y: View, inputs: Sequence[View], expression: str, b: "DeviceProgramBuilder") -> None:
    """``y = expression(inputs)``, operands broadcast."""
    nest = nest_of(y.shape, [y.strides, *(broadcast_strides(view, y.shape) for view in inputs)])
    tensors = {"y": y, **{f"x{index}": view for index, view in enumerate(inputs)}}
    rank = len(nest.sizes)
    sizes = {f"n{dim}": size for dim, size in enumerate(nest.sizes)}
    places: dict[str, int] = {}
    for index, (tensor_name, view) in enumerate(tensors.items()):
        places[f"{tensor_name}_offset"] = view.offset
        places |= {f"{tensor_name}_stride{dim}": nest.strides[dim][index] for dim in range(rank)}
    kernel = Map(str(parse(expression)), rank, tuple(view.dtype for view in tensors.values()))
    depth = prod(nest.sizes[:-2])
    b.call(kernel, {**tensors, **sizes, **places}, range_over((nest.sizes[-1], nest.sizes[-2], depth)))


@dataclass(frozen=True)
class Map:
    """Applies an expression to tensors of ``rank`` dimensions, the result and the operands of any element types; whole
    numbers are copied and converted only."""

    expression: str
    rank: int
    types: tuple[DType, ...]
    """The result's, then the operands'."""

    arithmetic = FLOAT32

    @property
    def name(self) -> str:
        words = re.findall(r"[a-z_]+(?=\()", self.expression)[:3]
        digest = hashlib.sha256(self.expression.encode()).hexdigest()[:8]
        return "_".join(["pcc_map", *words, digest, f"r{self.rank}", symbol_of(*self.types)])

    @property
    def operands(self) -> list[str]:
        return [f"x{index}" for index in range(len(self.types) - 1)]

    @property
    def params(self) -> tuple[Param, ...]:
        names = ("y", *self.operands)
        return (
            tensor("y", self.types[0], writes=True),
            *(tensor(name, dtype) for name, dtype in zip(self.operands, self.types[1:], strict=True)),
            *numbers(*(f"n{dim}" for dim in range(self.rank))),
            *(
                param
                for name in names
                for param in numbers(f"{name}_offset", *(f"{name}_stride{dim}" for dim in range(self.rank)))
            ),
        )

    def body(self, k: "DeviceKernelBuilder") -> None:
        last = self.rank - 1
        x, y, rest = place(k, k[f"n{last}"], k[f"n{last - 1}"])
        index = {last: x, last - 1: y}
        for dim in range(last - 2, 0, -1):
            rest, index[dim] = k.divide(rest, k[f"n{dim}"])
        if last > 1:
            index[0] = rest
        at = {
            name: k.let(sum((index[dim] * k[f"{name}_stride{dim}"] for dim in index), k[f"{name}_offset"]))
            for name in ("y", *self.operands)
        }
        if self.expression == COPY and not all(dtype.is_float for dtype in self.types):
            k.store_converted(k["y"], at["y"], k["x0"], at["x0"])
            return
        values = [k.load(k[name], at[name]) for name in self.operands]
        k.store(k["y"], at["y"], Emitter(of_numbers(k), values).emit(parse(self.expression)))

    def reference(self, args: Mapping[str, Argument], range: Range) -> None:
        n = whole_numbers(args)
        dims = tuple(f"{dim}" for dim in np.arange(self.rank))
        sizes = tuple(n[f"n{dim}"] for dim in dims)
        at = {
            name: elements(n[f"{name}_offset"], sizes, tuple(n[f"{name}_stride{dim}"] for dim in dims))
            for name in ("y", *self.operands)
        }
        y = np.asarray(args["y"])
        values = [np.asarray(args[name])[at[name]] for name in self.operands]
        if self.expression == COPY:
            y[at["y"]] = values[0].astype(y.dtype)
            return
        wide = [torch.from_numpy(value.astype(np.float32)) for value in values] or [torch.zeros(sizes)]
        y[at["y"]] = evaluate(parse(self.expression), wide).numpy().astype(y.dtype)


class Emitter:
    """Writes the code of an expression of numbers; what occurs twice is computed once."""

    def __init__(self, k: "DeviceKernelBuilder", operands: "Sequence[Value]") -> None:
        self.k = k
        self.operands = operands
        self.known: dict[Expr, Value] = {}

    def emit(self, expression: Expr) -> "Value":
        if isinstance(expression, Literal):
            return self.k.splat(float(np.float32(expression.value)))
        if expression not in self.known:
            self.known[expression] = self.k.let(self._compute(expression))
        return self.known[expression]

    def _compute(self, expression: Call | Operand) -> "Value":
        if isinstance(expression, Operand):
            return self.operands[expression.index]
        activated = as_activation(expression)
        if activated is not None:
            return activate(self.k, activated[0], self.emit(activated[1]))
        function, args = expression.function, [self.emit(arg) for arg in expression.args]
        if function in _OPENCL:
            return self.k.call(_OPENCL[function], *args)
        if function not in _WRITTEN:
            raise PccError(f"no GPU code for '{function}': add it to pcc/codegen/opencl/kernels/map.py")
        return _WRITTEN[function](self.k, *args)


_OPENCL = {
    **{name: name for name in ("exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "exp2", "erf", "pow")},
    **{name: name for name in ("sin", "cos", "atan", "floor", "ceil", "trunc", "fmod")},
    "abs": "fabs",
    "round": "rint",
}
"""Functions that OpenCL C has, under its names."""


def _truth(compare: "Callable[[Value, Value], Value]") -> "Callable[..., Value]":
    return lambda k, a, b: k.select(compare(a, b), k.splat(1.0), k.splat(0.0))


_WRITTEN: dict[str, Callable[..., Any]] = {
    "add": lambda k, a, b: a + b,
    "sub": lambda k, a, b: a - b,
    "mul": lambda k, a, b: a * b,
    "div": lambda k, a, b: a / b,
    "neg": lambda k, a: k.splat(0.0) - a,
    "reciprocal": lambda k, a: k.splat(1.0) / a,
    "max": lambda k, a, b: k.larger(a, b),
    "min": lambda k, a, b: k.smaller(a, b),
    "prelu": lambda k, a, b: k.select(a < k.splat(0.0), a * b, a),
    "swish": lambda k, a, b: a * activate(k, Activation("sigmoid"), a * b),
    "lt": _truth(lambda a, b: a < b),
    "le": _truth(lambda a, b: a <= b),
    "gt": _truth(lambda a, b: a > b),
    "ge": _truth(lambda a, b: a >= b),
    "eq": lambda k, a, b: k.select(k.equal(a, b), k.splat(1.0), k.splat(0.0)),
    "ne": lambda k, a, b: k.select(k.equal(a, b), k.splat(0.0), k.splat(1.0)),
    "where": lambda k, c, a, b: k.select(k.equal(c, k.splat(0.0)), b, a),
}
"""The others."""
