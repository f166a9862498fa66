"""Walks down the columns of a contiguous (outer, size, inner) tensor: running sums and the like, and the k largest
elements.

Neighbouring columns are the lanes of vectors; with ``inner`` 1 a column is a row of memory, and single values are
worked at.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels import math
from pcc.codegen.kernels.runs import exact_run
from pcc.codegen.program import ProgramBuilder, View
from pcc.dtype import FLOAT32

if TYPE_CHECKING:
    from pcc.codegen.builder import Expr, KernelBuilder

COLUMNS_PER_ITEM = 64


def emit_scan(b: ProgramBuilder, y: View, x: View, mode: str) -> None:
    """``y = scan(x)``, see ``pcc::scan``."""
    outer, size, inner = x.shape
    b.call(
        ScanColumns(mode), {"x": x, "y": y, "size": size, "inner": inner}, work=outer * -(-inner // COLUMNS_PER_ITEM)
    )


def emit_top_k(b: ProgramBuilder, y: View, x: View, k: int, largest: bool, indices: bool) -> None:
    """``y = top_k(x)``, see ``pcc::top_k``."""
    outer, size, inner = x.shape
    b.call(
        TopKColumns(largest, indices),
        {"x": x, "y": y, "size": size, "inner": inner, "count": k},
        work=outer * -(-inner // COLUMNS_PER_ITEM),
    )


def _columns(k: "KernelBuilder", emit: "Callable[[Expr, Expr, int], None]") -> None:
    """The loop over this call's columns: ``emit(outer, column, lanes)`` does ``lanes`` of them from ``column`` on."""
    inner = k["inner"]
    blocks = k.let((inner + (COLUMNS_PER_ITEM - 1)) // COLUMNS_PER_ITEM)
    with k.work() as item:
        outer, first = k.let(item // blocks), k.let(item % blocks * COLUMNS_PER_ITEM)
        exact_run(
            k,
            math.smaller(inner - first, COLUMNS_PER_ITEM),
            lambda offset, lanes: emit(outer, k.let(first + offset), lanes),
        )


def _reference_columns(args: Mapping[str, Argument], name: str, size: int, begin: int, end: int) -> "list[np.ndarray]":
    """The columns of each item of a tensor: views (size, columns)."""
    inner = int(args["inner"])  # type: ignore[arg-type]
    blocks = -(-inner // COLUMNS_PER_ITEM)
    found = []
    for item in range(begin, end):
        outer, first = item // blocks, item % blocks * COLUMNS_PER_ITEM
        found.append(
            np.asarray(args[name])[outer * size * inner :][: size * inner].reshape(size, inner)[
                :, first : first + COLUMNS_PER_ITEM
            ]
        )
    return found


@dataclass(frozen=True)
class ScanColumns:
    """Each element is combined with what came before it."""

    mode: str

    @property
    def name(self) -> str:
        return f"pcc_scan_{self.mode}"

    @property
    def params(self) -> tuple[Param, ...]:
        return Param("x", "f32*"), Param("y", "f32*", writes=True), Param("size"), Param("inner")

    def body(self, k: "KernelBuilder") -> None:
        total = k.local(k.lanes)

        def emit(outer: "Expr", column: "Expr", lanes: int) -> None:
            at = k.let(outer * (k["size"] * k["inner"]) + column)
            k.store(total, 0, k.load(k["x"], at, lanes), lanes)
            k.store(k["y"], at, k.load(total, 0, lanes), lanes)
            with k.loop(1, k["size"]) as i:
                place = k.let(at + i * k["inner"])
                k.store(
                    total,
                    0,
                    math.combine(k, self.mode, k.load(total, 0, lanes), k.let(k.load(k["x"], place, lanes))),
                    lanes,
                )
                k.store(k["y"], place, k.load(total, 0, lanes), lanes)

        _columns(k, emit)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        size = int(args["size"])  # type: ignore[arg-type]
        combine = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}[self.mode]
        for x, y in zip(*(_reference_columns(args, name, size, begin, end) for name in ("x", "y")), strict=True):
            y[:] = combine.accumulate(x, 0)


@dataclass(frozen=True)
class TopKColumns:
    """Again and again the best element that comes after the last one chosen: no memory beside the result, whatever k
    is.

    Elements are ordered by value, a NaN as an infinity, and equal ones by position.
    """

    largest: bool
    indices: bool

    @property
    def name(self) -> str:
        return "_".join(["pcc_top", "largest" if self.largest else "smallest", "indices" if self.indices else "values"])

    @property
    def params(self) -> tuple[Param, ...]:
        return Param("x", "f32*"), Param("y", "f32*", writes=True), Param("size"), Param("inner"), Param("count")

    def body(self, k: "KernelBuilder") -> None:
        from tvm import tirx

        # The key is larger for what comes earlier; places are whole numbers as fp32.
        last_key, last_place, best_key, best_place, best = (k.local(k.lanes) for _ in range(5))

        def emit(outer: "Expr", column: "Expr", lanes: int) -> None:
            def c(value: float) -> "Expr":
                return math.constant(k, value, lanes)

            x_at, y_at = (k.let(outer * (rows * k["inner"]) + column) for rows in (k["size"], k["count"]))
            k.store(last_key, 0, c(float("inf")), lanes)
            k.store(last_place, 0, c(-1.0), lanes)
            with k.loop(0, k["count"]) as rank:
                k.store(best_key, 0, c(float("-inf")), lanes)
                k.store(best_place, 0, c(float("inf")), lanes)
                k.store(best, 0, c(0.0), lanes)
                key_before, place_before = k.let(k.load(last_key, 0, lanes)), k.let(k.load(last_place, 0, lanes))
                with k.loop(0, k["size"]) as i:
                    value = k.let(k.load(k["x"], x_at + i * k["inner"], lanes))
                    place = k.let(k.splat(tirx.Cast(FLOAT32.tir(), i), lanes))
                    signed = value if self.largest else c(0.0) - value
                    key = k.let(
                        math.select(k, tirx.isnan(value), c(float("inf") if self.largest else float("-inf")), signed)
                    )
                    after = tirx.Or(key < key_before, tirx.And(tirx.EQ(key, key_before), place > place_before))
                    key_best, place_best = k.let(k.load(best_key, 0, lanes)), k.let(k.load(best_place, 0, lanes))
                    better = tirx.Or(key > key_best, tirx.And(tirx.EQ(key, key_best), place < place_best))
                    # As numbers, for vectors of truth values are no vectors that can be kept.
                    chosen = k.let(math.select(k, tirx.And(after, better), c(1.0), c(0.0)))
                    for kept, new in ((best_key, key), (best_place, place), (best, value)):
                        k.store(kept, 0, math.select(k, chosen > c(0.5), new, k.load(kept, 0, lanes)), lanes)
                for kept, new in ((last_key, best_key), (last_place, best_place)):
                    k.store(kept, 0, k.load(new, 0, lanes), lanes)
                k.store(k["y"], y_at + rank * k["inner"], k.load(best_place if self.indices else best, 0, lanes), lanes)

        _columns(k, emit)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        size, count = int(args["size"]), int(args["count"])  # type: ignore[arg-type]
        for x, y in zip(
            _reference_columns(args, "x", size, begin, end),
            _reference_columns(args, "y", count, begin, end),
            strict=True,
        ):
            key = np.where(np.isnan(x), -np.inf if self.largest else np.inf, -x if self.largest else x)
            places = np.argsort(key, axis=0, kind="stable")[:count]
            y[:] = places if self.indices else np.take_along_axis(x, places, 0)
