"""Fused elementwise chains over operands that broadcast: one pass over memory, whatever the expression."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels import math
from pcc.codegen.kernels.epilogue import PARAMETRIC_CODE, activate
from pcc.codegen.kernels.nest import NEST_PARAMS, broadcast_strides, nest_of, reference_rows, row_of, rows_of_work
from pcc.codegen.kernels.power import power
from pcc.codegen.kernels.runs import exact_run
from pcc.codegen.kernels.trigonometry import atan, cos, sin
from pcc.codegen.layers import Elementwise
from pcc.codegen.program import ProgramBuilder
from pcc.errors import PccError
from pcc.ir.expression import Call, Expr, Literal, Operand, as_activation, evaluate, parse

if TYPE_CHECKING:
    from pcc.codegen.builder import Expr as Value
    from pcc.codegen.builder import KernelBuilder


def emit_elementwise(layer: Elementwise, b: ProgramBuilder) -> None:
    """``y = expression(inputs)``."""
    if not prod(layer.y.shape):
        return
    nest = nest_of(layer.y.shape, [layer.y.strides, *(broadcast_strides(view, layer.y.shape) for view in layer.inputs)])
    y_stride, *strides = nest.run_strides
    access = "".join({0: "s", 1: "v"}.get(stride, "g") for stride in strides) if y_stride == 1 else "g" * len(strides)
    kernel = Map(str(parse(layer.expression)), access if "g" not in access else "g" * len(access))
    operands = {f"x{index}": view for index, view in enumerate(layer.inputs)}
    b.call(kernel, {"y": layer.y, **operands, **nest.arguments(b, layer.name)}, work=nest.work)


@dataclass(frozen=True)
class Map:
    """Applies an expression along rows. ``access`` has a letter for each operand: ``v`` contiguous along the row, ``s``
    one value for the row; all ``g`` if anything (the result included) has another stride, which is then walked element
    by element."""

    expression: str
    access: str

    @property
    def name(self) -> str:
        words = re.findall(r"[a-z_]+(?=\()", self.expression)[:3]
        return "_".join(["pcc_map", *words, hashlib.sha256(self.expression.encode()).hexdigest()[:8], self.access])

    @property
    def params(self) -> tuple[Param, ...]:
        return (
            Param("y", "f32*", writes=True),
            *(Param(f"x{index}", "f32*") for index in range(len(self.access))),
            *NEST_PARAMS,
        )

    def body(self, k: "KernelBuilder") -> None:
        expression = parse(self.expression)
        operands = [k[f"x{index}"] for index in range(len(self.access))]
        with rows_of_work(k, tensors=1 + len(operands)) as ((y_at, *at), length, (y_stride, *strides)):
            if "g" in self.access:
                with k.loop(0, length) as i:
                    values = [
                        k.load(x, start + i * stride) for x, start, stride in zip(operands, at, strides, strict=True)
                    ]
                    k.store(k["y"], y_at + i * y_stride, Emitter(k, values, 1).emit(expression))
                return
            same = {index: k.let(k.load(x, at[index])) for index, x in enumerate(operands) if self.access[index] == "s"}

            def emit(offset: "Value", lanes: int) -> None:
                values = [
                    k.splat(same[n], lanes) if n in same else k.load(x, at[n] + offset, lanes)
                    for n, x in enumerate(operands)
                ]
                k.store(k["y"], y_at + offset, Emitter(k, values, lanes).emit(expression), lanes)

            exact_run(k, length, emit)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        expression, count = parse(self.expression), len(self.access)
        for (y_at, *at), length, (y_stride, *strides) in reference_rows(args, 1 + count, begin, end):
            rows = [row_of(args[f"x{index}"], at[index], length, strides[index]) for index in range(count)]
            values = [torch.from_numpy(np.array(row)) for row in rows] or [torch.zeros(length)]
            row_of(args["y"], y_at, length, y_stride)[:] = evaluate(expression, values).numpy()


class Emitter:
    """Writes the code of an expression; what occurs twice is computed once. A NaN stays a NaN."""

    def __init__(self, k: "KernelBuilder", operands: "Sequence[Value]", lanes: int) -> None:
        self.k = k
        self.lanes = lanes
        self.operands = operands
        self.known: dict[Expr, Value] = {}

    def emit(self, expression: Expr) -> "Value":
        if isinstance(expression, Literal):
            return self.constant(expression.value)
        if expression not in self.known:
            self.known[expression] = self.k.let(self._compute(expression))
        return self.known[expression]

    def constant(self, value: float) -> "Value":
        return math.constant(
            self.k, float(np.float32(value)), self.lanes
        )  # or TVM keeps more digits where it widens it

    def _compute(self, expression: Call | Operand) -> "Value":
        if isinstance(expression, Operand):
            if expression.index >= len(self.operands):
                raise PccError(f"expression: operand x{expression.index} of {len(self.operands)} operands")
            return self.operands[expression.index]
        activated = as_activation(expression)
        if activated is not None:
            return activate(self.k, activated[0], self.emit(activated[1]), self.lanes)
        if (
            expression.function == "pow"
            and isinstance(expression.args[1], Literal)
            and _is_short(expression.args[1].value)
        ):
            return self._power(self.emit(expression.args[0]), expression.args[1].value)
        return self._arithmetic(expression.function, *(self.emit(arg) for arg in expression.args))

    def _arithmetic(self, function: str, *args: "Value") -> "Value":
        k, lanes = self.k, self.lanes
        match function, args:
            case "add", (a, b):
                return a + b
            case "sub", (a, b):
                return a - b
            case "mul", (a, b):
                return a * b
            case "div", (a, b):
                return a / b
            case _:
                return _FUNCTIONS[function](k, *args, lanes)

    def _power(self, base: "Value", exponent: float) -> "Value":
        """Quarters by roots, the whole part by multiplication."""
        whole, part = divmod(abs(exponent), 1.0)
        value = None
        if part:
            half = math.sqrt(self.k, base, self.lanes)
            quarter = half if part == 0.5 else math.sqrt(self.k, self.k.let(half), self.lanes)
            value = half * quarter if part == 0.75 else quarter
        square, count = base, int(whole)
        while count:
            if count % 2:
                value = square if value is None else self.k.let(value * square)
            count //= 2
            if count:
                square = self.k.let(square * square)
        value = self.constant(1.0) if value is None else value
        return self.constant(1.0) / value if exponent < 0 else value


def _is_short(exponent: float) -> bool:
    """Whether a few multiplications and roots make a power."""
    return abs(exponent) <= 16 and (exponent / 0.25).is_integer()


def _whole(intrinsic: str) -> "Callable[..., Value]":
    """A rounding to whole numbers, which every instruction set has as one instruction."""
    return lambda k, a, lanes: math.intrinsic(intrinsic, a, lanes)


def _truth(
    compare: "Callable[[Value, Value], Value]", *, alike: bool, opposite: bool = False
) -> "Callable[..., Value]":
    """1 where a comparison holds (or, if ``opposite``, where it does not), else 0.

    ``alike`` is whether equal numbers satisfy it: TVM's simplifier takes a value to be equal to itself, which a NaN is
    not.
    """

    def emit(k: "KernelBuilder", a: "Value", b: "Value", lanes: int) -> "Value":
        yes, no = (math.constant(k, float(truth != opposite), lanes) for truth in (True, False))
        if a is b:
            return math.select(k, math.is_nan(a), no, yes if alike else no)
        return math.select(k, compare(a, b), yes, no)

    return emit


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **PARAMETRIC_CODE,
    "neg": lambda k, a, lanes: a * math.constant(k, -1.0, lanes),
    "abs": math.absolute,
    "fmod": math.fmod,
    "exp": math.exp,
    "expm1": math.expm1,
    "log": math.log,
    "log1p": math.log1p,
    "sqrt": math.sqrt,
    "rsqrt": lambda k, a, lanes: math.constant(k, 1.0, lanes) / math.sqrt(k, a, lanes),
    "reciprocal": lambda k, a, lanes: math.constant(k, 1.0, lanes) / a,
    "exp2": math.exp2,
    "erf": math.erf,
    "pow": power,
    "sin": sin,
    "cos": cos,
    "atan": atan,
    "floor": _whole("llvm.floor"),
    "ceil": _whole("llvm.ceil"),
    "trunc": _whole("llvm.trunc"),
    "round": _whole("llvm.rint"),
    "lt": _truth(lambda a, b: a < b, alike=False),
    "le": _truth(lambda a, b: a <= b, alike=True),
    "gt": _truth(lambda a, b: a > b, alike=False),
    "ge": _truth(lambda a, b: a >= b, alike=True),
    "eq": _truth(math.equal, alike=True),
    "ne": _truth(math.equal, alike=True, opposite=True),  # TVM's inequality is false for a NaN
    "where": lambda k, c, a, b, lanes: math.select(k, math.equal(c, math.constant(k, 0.0, lanes)), b, a),
}
