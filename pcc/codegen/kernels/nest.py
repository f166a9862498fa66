"""Loop nests over several tensors of one shape and any strides: merged to as few dimensions as possible, cut into
items, walked row by row.

The last dimension is the *run*, the one before it the *rows*; an item is a block of rows of a part of the run, and the
dimensions outside are decoded from the item's number. Broadcast operands have stride 0.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels import math
from pcc.codegen.program import ProgramBuilder, View
from pcc.dtype import INT32

if TYPE_CHECKING:
    from pcc.codegen.builder import Expr, KernelBuilder

ITEM_ELEMENTS = 16384
"""Elements an item should have: tens of microseconds of work, a few hundred kilobytes at most."""

NEST_PARAMS = (Param("table", "i32*"), Param("rank"), Param("rows_per_item"), Param("run_per_item"))
"""``table`` is int32 (rank, 1 + tensors): size and strides of each dimension, outermost first."""


@dataclass(frozen=True)
class Nest:
    """At least two dimensions, outermost first: their sizes, and for each the stride of every tensor."""

    sizes: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    run_limit: int = ITEM_ELEMENTS
    """The longest part of the run an item may have."""

    @property
    def run_strides(self) -> tuple[int, ...]:
        """Each tensor's stride along the run."""
        return self.strides[-1]

    @property
    def rows_per_item(self) -> int:
        return max(1, ITEM_ELEMENTS // self.run_per_item)

    @property
    def run_per_item(self) -> int:
        return min(self.sizes[-1], self.run_limit)

    @property
    def work(self) -> int:
        """The number of items."""
        row_blocks, run_blocks = -(-self.sizes[-2] // self.rows_per_item), -(-self.sizes[-1] // self.run_per_item)
        return prod(self.sizes[:-2]) * row_blocks * run_blocks

    def arguments(self, b: ProgramBuilder, name: str) -> dict[str, View | int | float]:
        """The values of `NEST_PARAMS`."""
        table = np.column_stack([np.array(self.sizes), np.array(self.strides)])
        return {
            "table": b.table(f"{name}.nest", table),
            "rank": len(self.sizes),
            "rows_per_item": self.rows_per_item,
            "run_per_item": self.run_per_item,
        }


def nest_of(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> Nest:
    """The nest over tensors of that shape, each given by its strides; neighbouring dimensions that every tensor walks
    as one are merged."""
    sizes: list[int] = []
    steps: list[tuple[int, ...]] = []
    for size, step in zip(shape, zip(*strides, strict=True), strict=True):
        if size == 1:
            continue
        if sizes and steps[-1] == tuple(size * stride for stride in step):
            sizes[-1], steps[-1] = sizes[-1] * size, step
        else:
            sizes.append(size)
            steps.append(step)
    missing = max(0, 2 - len(sizes))
    return Nest((1,) * missing + tuple(sizes), ((0,) * len(strides),) * missing + tuple(steps))


def broadcast_strides(view: View, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The view's strides as a tensor of ``shape``, by NumPy's rules of broadcasting."""
    missing = len(shape) - len(view.shape)
    return (0,) * missing + tuple(
        0 if size == 1 and wanted != 1 else stride
        for size, stride, wanted in zip(view.shape, view.strides, shape[missing:], strict=True)
    )


@contextmanager
def rows_of_work(k: "KernelBuilder", tensors: int) -> Generator[tuple[list["Expr"], "Expr", list["Expr"]]]:
    """The loop over this call's rows: each tensor's offset of the row's first element, the row's length, each tensor's
    stride along it."""
    rank, rows_per_item, run_per_item = k["rank"], k["rows_per_item"], k["run_per_item"]

    def size(dim: "Expr") -> "Expr":
        return k.load(k["table"], dim * (1 + tensors))

    def stride(dim: "Expr", tensor: int) -> "Expr":
        return k.load(k["table"], dim * (1 + tensors) + 1 + tensor)

    rows, run = k.let(size(rank - 2)), k.let(size(rank - 1))
    row_strides = [k.let(stride(rank - 2, t)) for t in range(tensors)]
    run_strides = [k.let(stride(rank - 1, t)) for t in range(tensors)]
    row_blocks = k.let((rows + rows_per_item - 1) // rows_per_item)
    run_blocks = k.let((run + run_per_item - 1) // run_per_item)
    outer, start = k.local(1, INT32), k.local(tensors, INT32)
    with k.work() as item:
        row = k.let(item // run_blocks % row_blocks * rows_per_item)
        column = k.let(item % run_blocks * run_per_item)
        k.store(outer, 0, item // (row_blocks * run_blocks))
        for t in range(tensors):
            k.store(start, t, row * row_strides[t] + column * run_strides[t])
        with k.loop(0, rank - 2) as inward:
            dim = k.let(rank - 3 - inward)
            index = k.let(k.load(outer, 0) % size(dim))
            for t in range(tensors):
                k.store(start, t, k.load(start, t) + index * stride(dim, t))
            k.store(outer, 0, k.load(outer, 0) // size(dim))
        starts = [k.let(k.load(start, t)) for t in range(tensors)]
        length = k.let(math.smaller(run - column, run_per_item))
        with k.loop(0, math.smaller(rows - row, rows_per_item)) as r:
            yield [k.let(starts[t] + r * row_strides[t]) for t in range(tensors)], length, run_strides


def reference_rows(
    args: Mapping[str, Argument], tensors: int, begin: int, end: int
) -> Iterator[tuple[list[int], int, list[int]]]:
    """`rows_of_work` on numbers."""
    table = np.asarray(args["table"])[: int(args["rank"]) * (1 + tensors)].reshape(-1, 1 + tensors)
    sizes, strides = table[:, 0], table[:, 1:]
    rows_per_item, run_per_item = int(args["rows_per_item"]), int(args["run_per_item"])
    blocks = (*sizes[:-2], -(-sizes[-2] // rows_per_item), -(-sizes[-1] // run_per_item))
    for item in range(begin, end):
        *outer, row, column = (int(index) for index in np.unravel_index(item, blocks))
        row, column = row * rows_per_item, column * run_per_item
        length = min(int(sizes[-1]) - column, run_per_item)
        for r in range(row, min(int(sizes[-2]), row + rows_per_item)):
            yield (
                [int(at) for at in np.array([*outer, r, column]) @ strides],
                length,
                [int(stride) for stride in strides[-1]],
            )


def row_of(array: Argument, at: int, length: int, stride: int) -> np.ndarray:
    """A row as a numpy array that can be written through."""
    array = np.asarray(array)
    return np.lib.stride_tricks.as_strided(array[at:], (length,), (stride * array.itemsize,))
