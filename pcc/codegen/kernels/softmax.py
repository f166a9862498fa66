"""Softmax and log-softmax over any dimension of a contiguous tensor, shifted by the maximum so that nothing overflows.

A contiguous tensor is (outer, size, inner) around the dimension. With ``inner`` 1 an item is a row; else it is a
stretch of neighbouring columns, a vector of which is worked at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels import math
from pcc.codegen.kernels.pool import fold
from pcc.codegen.kernels.runs import exact_run
from pcc.codegen.layers import Softmax
from pcc.codegen.program import ProgramBuilder

if TYPE_CHECKING:
    from pcc.codegen.builder import Expr, KernelBuilder

COLUMNS_PER_ITEM = 64


def emit_softmax(layer: Softmax, b: ProgramBuilder) -> None:
    """``y = softmax(x)`` over ``dim``."""
    shape = layer.x.shape
    dim = layer.dim % len(shape)
    outer, size, inner = prod(shape[:dim]), shape[dim], prod(shape[dim + 1 :])
    if inner == 1:
        b.call(SoftmaxRows(layer.log), {"x": layer.x, "y": layer.y, "size": size}, work=outer)
    else:
        work = outer * -(-inner // COLUMNS_PER_ITEM)
        b.call(SoftmaxColumns(layer.log), {"x": layer.x, "y": layer.y, "size": size, "inner": inner}, work=work)


def _reference(x: np.ndarray, axis: int, log: bool) -> np.ndarray:
    shifted = x - x.max(axis, keepdims=True)
    total = np.exp(shifted).sum(axis, keepdims=True)
    return shifted - np.log(total) if log else np.exp(shifted) / total


@dataclass(frozen=True)
class SoftmaxRows:
    """Rows that are contiguous; an item is a row."""

    log: bool

    @property
    def name(self) -> str:
        return "pcc_log_softmax_rows" if self.log else "pcc_softmax_rows"

    @property
    def params(self) -> tuple[Param, ...]:
        return (Param("x", "f32*"), Param("y", "f32*", writes=True), Param("size"))

    def body(self, k: "KernelBuilder") -> None:
        lanes, size = k.lanes, k["size"]
        peaks, sums, peak, total = k.local(lanes), k.local(lanes), k.local(1), k.local(1)
        with k.work() as row:
            at = k.let(row * size)
            k.store(peaks, 0, k.splat(float("-inf"), lanes), lanes)
            k.store(peak, 0, float("-inf"))

            def largest(offset: "Expr", width: int) -> None:
                value = k.let(k.load(k["x"], at + offset, width))
                if width == lanes:
                    k.store(peaks, 0, math.maximum(k, k.load(peaks, 0, lanes), value), lanes)
                else:
                    k.store(peak, 0, math.maximum(k, k.load(peak, 0), fold(k, "max", value, width)))

            exact_run(k, size, largest)
            k.store(peak, 0, math.maximum(k, k.load(peak, 0), fold(k, "max", k.load(peaks, 0, lanes), lanes)))
            highest = k.let(k.load(peak, 0))
            k.store(sums, 0, k.splat(0.0, lanes), lanes)
            k.store(total, 0, 0.0)

            def add(offset: "Expr", width: int) -> None:
                shifted = k.let(k.load(k["x"], at + offset, width) - k.splat(highest, width))
                power = k.let(math.exp(k, shifted, width))
                k.store(k["y"], at + offset, shifted if self.log else power, width)
                if width == lanes:
                    k.store(sums, 0, k.load(sums, 0, lanes) + power, lanes)
                else:
                    k.store(total, 0, k.load(total, 0) + fold(k, "avg", power, width))

            exact_run(k, size, add)
            whole = k.let(k.load(total, 0) + fold(k, "avg", k.load(sums, 0, lanes), lanes))
            last = k.let(math.log(k, whole, 1)) if self.log else k.let(math.constant(k, 1.0, 1) / whole)

            def finish(offset: "Expr", width: int) -> None:
                value = k.load(k["y"], at + offset, width)
                k.store(
                    k["y"],
                    at + offset,
                    value - k.splat(last, width) if self.log else value * k.splat(last, width),
                    width,
                )

            exact_run(k, size, finish)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        x, y, size = np.asarray(args["x"]), np.asarray(args["y"]), int(args["size"])
        rows = x[begin * size : end * size].reshape(-1, size)
        y[begin * size : end * size] = _reference(rows, 1, self.log).ravel()


@dataclass(frozen=True)
class SoftmaxColumns:
    """Columns ``inner`` apart; an item is up to `COLUMNS_PER_ITEM` neighbouring columns."""

    log: bool

    @property
    def name(self) -> str:
        return "pcc_log_softmax_columns" if self.log else "pcc_softmax_columns"

    @property
    def params(self) -> tuple[Param, ...]:
        return (Param("x", "f32*"), Param("y", "f32*", writes=True), Param("size"), Param("inner"))

    def body(self, k: "KernelBuilder") -> None:
        size, inner = k["size"], k["inner"]
        blocks = k.let((inner + (COLUMNS_PER_ITEM - 1)) // COLUMNS_PER_ITEM)
        peaks, sums = k.local(k.lanes), k.local(k.lanes)
        with k.work() as item:
            column = k.let(item % blocks * COLUMNS_PER_ITEM)
            at = k.let(item // blocks * size * inner + column)

            def emit(offset: "Expr", lanes: int) -> None:
                start = k.let(at + offset)
                k.store(peaks, 0, math.constant(k, float("-inf"), lanes), lanes)
                k.store(sums, 0, math.constant(k, 0.0, lanes), lanes)
                with k.loop(0, size) as i:
                    k.store(
                        peaks,
                        0,
                        math.maximum(k, k.load(peaks, 0, lanes), k.load(k["x"], start + i * inner, lanes)),
                        lanes,
                    )
                with k.loop(0, size) as i:
                    shifted = k.let(k.load(k["x"], start + i * inner, lanes) - k.load(peaks, 0, lanes))
                    power = k.let(math.exp(k, shifted, lanes))
                    k.store(k["y"], start + i * inner, shifted if self.log else power, lanes)
                    k.store(sums, 0, k.load(sums, 0, lanes) + power, lanes)
                whole = k.let(k.load(sums, 0, lanes))
                last = k.let(math.log(k, whole, lanes) if self.log else math.constant(k, 1.0, lanes) / whole)
                with k.loop(0, size) as i:
                    value = k.load(k["y"], start + i * inner, lanes)
                    k.store(k["y"], start + i * inner, value - last if self.log else value * last, lanes)

            exact_run(k, math.smaller(inner - column, COLUMNS_PER_ITEM), emit)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        size, inner = int(args["size"]), int(args["inner"])
        blocks = -(-inner // COLUMNS_PER_ITEM)
        for item in range(begin, end):
            start, column = item // blocks * size * inner, item % blocks * COLUMNS_PER_ITEM
            x, y = (
                np.asarray(args[name])[start : start + size * inner].reshape(size, inner)[
                    :, column : column + COLUMNS_PER_ITEM
                ]
                for name in ("x", "y")
            )
            y[:] = _reference(x, 0, self.log)
