"""The block-interleaved layout: an image is cut into as many blocks as a vector has lanes, and lane ``l`` of every
vector belongs to block ``l``.

A *line* is one position of all blocks: ``lanes`` values, aligned. Line (i, j) of a channel holds the input at row i and
column j of each block, with the rows and columns around it that a window reaches. So whatever stride, dilation and
padding are, a tap of output (r, q) of every block at once is one line, at a constant distance: an aligned load, no
shuffle, and no junk columns.

Blocks are all of one size. Where they do not divide the output, the last ones overlap the ones before and compute the
same values again; lanes without a block repeat the first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import READ_LEAD, READ_SLACK, Argument, Param
from pcc.codegen.kernels.transpose import QUARTER, transpose_quarters
from pcc.codegen.layers import ConvGeometry
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import ProgramBuilder, View, contiguous_strides
from pcc.dtype import FLOAT32

if TYPE_CHECKING:
    from pcc.codegen.builder import Buffer, Expr, KernelBuilder


@dataclass(frozen=True)
class Blocks:
    """How the output of a convolution is cut into blocks of ``rows`` x ``columns``: ``across`` of them side by side,
    ``lanes // across`` below each other."""

    lanes: int
    across: int
    rows: int
    columns: int

    def __str__(self) -> str:
        return f"{self.lanes // self.across}x{self.across} blocks of {self.rows}x{self.columns}"


SAME_SETS = 2048
"""Bytes. Where channels begin at multiples of it, the same lines of all of them share one or two places of a cache of
4 KiB a way, which then holds few channels: pruned 3x3 layers of 256 channels at 14x14 took 1.2 to 1.5 times as long in
ResNet-50 (Zen 3)."""


@dataclass(frozen=True)
class Layout:
    """The lines of a channel, for an input of ``height`` x ``width``."""

    blocks: Blocks
    geometry: ConvGeometry
    height: int
    width: int

    @cached_property
    def size(self) -> tuple[int, int]:
        """(rows, columns) of the output."""
        return self.geometry.output_size(self.height, self.width)

    @property
    def pitch(self) -> int:
        """Lines of a row."""
        return line_extent(self.blocks.columns, self.geometry, 1)

    @property
    def rows(self) -> int:
        """Rows of lines: those that are read, and another where channels would share the sets of caches."""
        return self.apart(line_extent(self.blocks.rows, self.geometry, 0))

    def apart(self, rows: int) -> int:
        """The rows of lines from a channel to the next one, of which so many are read."""
        return rows + (self.elements(rows) * FLOAT32.bytes % SAME_SETS == 0)

    def elements(self, rows: int) -> int:
        """Of so many rows of lines."""
        return rows * self.pitch * self.blocks.lanes

    @property
    def plane(self) -> int:
        """Elements of a channel."""
        return self.elements(self.rows)

    @cached_property
    def origins(self) -> np.ndarray:
        """int64 (lanes, 2): the first output row and column of each lane's block."""
        (height, width), blocks = self.size, self.blocks
        down = -(-height // blocks.rows)
        lane = np.arange(blocks.lanes)
        lane = np.where(lane < down * blocks.across, lane, 0)
        row, column = lane // blocks.across * blocks.rows, lane % blocks.across * blocks.columns
        return np.stack([np.minimum(row, height - blocks.rows), np.minimum(column, width - blocks.columns)], axis=1)

    @property
    def is_possible(self) -> bool:
        """Whether blocks fit the output, and what is read before and behind a tensor stays within what may be read."""
        (height, width), blocks = self.size, self.blocks
        covers = blocks.rows * (blocks.lanes // blocks.across) >= height and blocks.columns * blocks.across >= width
        columns = self.source(1)
        near = (
            columns.min() * FLOAT32.bytes >= -READ_LEAD
            and (columns.max() + QUARTER - self.width) * FLOAT32.bytes <= READ_SLACK
        )
        return covers and blocks.rows <= height and blocks.columns <= width and bool(near)

    def source(self, axis: int) -> np.ndarray:
        """int64 (rows or pitch, lanes): the input row (column) of each row (column) of lines, in each lane; it may lie
        outside the image."""
        first = self.origins[:, axis] * self.geometry.stride[axis] - self.geometry.padding[axis]
        return np.arange((self.rows, self.pitch)[axis])[:, None] + first

    def output_at(self, view: View, window: tuple[int, int] = (1, 1)) -> np.ndarray:
        """int32 (lanes,): where each block begins in a plane of the output, or of what a max pool by ``window`` leaves
        of it."""
        return (self.origins // window @ view.strides[2:]).astype(np.int32)


def line_extent(count: int, geometry: ConvGeometry, axis: int) -> int:
    """How many rows (columns) of lines ``count`` rows (columns) of outputs read."""
    return (count - 1) * geometry.stride[axis] + (geometry.window[axis] - 1) * geometry.dilation[axis] + 1


def interleaving_work(x: View, layout: Layout, machine: Machine) -> Work:
    """What the copy of a tensor executes, and reading it once."""
    shape = (x.shape[0], x.shape[1], layout.rows, layout.pitch, layout.blocks.lanes)
    copied, lines = View(x.buffer, shape, contiguous_strides(shape), dtype=x.dtype), prod(shape[:4])
    return Work(lines=lines, stores=lines) + machine.beyond(x, copied, copied)


@dataclass(frozen=True)
class RowCopy:
    """How rows of lines are copied from planes: the part that machine code is specialised to.

    ``left`` and ``right`` columns of lines, and the rows outside [whole_begin, whole_end), have lanes that lie outside
    the image: those read as zero.
    """

    lanes: int
    pitch: int
    left: int
    right: int

    def __str__(self) -> str:
        return f"{self.lanes}x{self.pitch}_{self.left}_{self.right}"

    @property
    def params(self) -> tuple[Param, ...]:
        tables = (Param("row_at", "i32*"), Param("row_mask", "i32*"), Param("column_mask", "i32*"))
        return (*tables, Param("whole_begin"), Param("whole_end"))

    def emit(
        self, k: "KernelBuilder", source: "Buffer", row: "Expr", target: "Buffer", ahead: "Expr | None" = None
    ) -> None:
        """Copies row ``row`` of lines of the plane that begins at ``source`` to ``target``, and asks for the same row
        of the plane ``ahead`` elements on."""
        from tvm import tirx

        starts = [k.pointer(source, k.load(k["row_at"], row * self.lanes + lane)) for lane in range(self.lanes)]
        if ahead is not None:
            for start in starts:
                k.prefetch(start, ahead, write=False)
        with k.when_else(tirx.And(row >= k["whole_begin"], row < k["whole_end"])) as (then, otherwise):
            with then:
                self._copy(k, starts, target, None)
            with otherwise:
                self._copy(k, starts, target, k.let(k.load(k["row_mask"], row * self.lanes, self.lanes)))

    def _copy(self, k: "KernelBuilder", starts: list["Buffer"], target: "Buffer", row_mask: "Expr | None") -> None:
        for first in range(0, self.pitch, QUARTER):
            quarters = [k.load(start, first, QUARTER) for start in starts]
            if (
                row_mask is None
                and self.lanes == QUARTER
                and first >= self.left
                and first + QUARTER <= self.pitch - self.right
            ):
                # NEON interleaves four vectors as it stores them (st4).
                interleaved = k.shuffle(
                    quarters, [lane * QUARTER + column for column in range(QUARTER) for lane in range(QUARTER)]
                )
                k.store(target, first * self.lanes, interleaved, QUARTER * QUARTER)
                continue
            for column, line in zip(range(first, self.pitch), transpose_quarters(k, quarters), strict=False):
                is_edge = column < self.left or column >= self.pitch - self.right
                if is_edge:
                    line = k.mask(line, k.load(k["column_mask"], column * self.lanes, self.lanes), self.lanes)
                if row_mask is not None:
                    line = k.mask(line, row_mask, self.lanes)
                k.store(target, column * self.lanes, line, self.lanes)

    def reference(self, args: Mapping[str, Argument], plane: np.ndarray, first: int, rows: int) -> np.ndarray:
        """Rows [first, first + rows) of lines of a plane (flat, from its first element), as (rows, pitch, lanes)."""
        row_at, row_mask = (
            np.asarray(args[name])[first * self.lanes :][: rows * self.lanes].reshape(rows, 1, self.lanes)
            for name in ("row_at", "row_mask")
        )
        column_mask = np.asarray(args["column_mask"])[: self.pitch * self.lanes].reshape(self.pitch, self.lanes)
        keep = (row_mask != 0) & (column_mask != 0)
        at = np.where(keep, row_at + np.arange(self.pitch)[:, None], 0)
        return np.where(keep, plane[at], np.float32(0))


def row_copy(b: ProgramBuilder, x: View, layout: Layout) -> tuple[RowCopy, dict[str, View | int]]:
    """How the planes of ``x`` are copied, and the arguments for it."""
    rows, columns = layout.source(0), layout.source(1)
    row_exists, column_exists = (rows >= 0) & (rows < layout.height), (columns >= 0) & (columns < layout.width)
    (above, below), (left, right) = _edges(row_exists), _edges(column_exists)
    tables = {
        "row_at": (np.clip(rows, 0, layout.height - 1) * x.strides[2] + columns[0]).astype(np.int32),
        "row_mask": -row_exists.astype(np.int32),
        "column_mask": -column_exists.astype(np.int32),
    }
    constants = {name: b.constant(f"{b.layer or x.buffer}.{name}", table) for name, table in tables.items()}
    return RowCopy(layout.blocks.lanes, layout.pitch, left, right), {
        **constants,
        "whole_begin": above,
        "whole_end": layout.rows - below,
    }


def interleave(b: ProgramBuilder, x: View, layout: Layout) -> View:
    """``x`` (N, C, H, W) as (N, C, rows, pitch, lanes); records the copy, once for equal requests."""
    batch, channels = x.shape[:2]
    key = ("interleave", x, layout)
    if key not in b.shared:
        shape = (batch, channels, layout.rows, layout.pitch, layout.blocks.lanes)
        view = b.shared[key] = b.tensor(f"{b.layer or x.buffer}.interleaved", shape, x.dtype)
        copy, arguments = row_copy(b, x, layout)
        numbers = {"rows": layout.rows, "channels": channels, "x_image": x.strides[0], "x_plane": x.strides[1]}
        b.call(Interleave(copy), {"x": x, "y": view, **arguments, **numbers}, work=batch * channels, arithmetic=x.dtype)
    return b.shared[key]


def _edges(exists: np.ndarray) -> tuple[int, int]:
    """How many of the first and of the last rows (columns) of lines have lanes outside the image; ``exists`` is bool
    (rows, lanes)."""
    whole = np.flatnonzero(exists.all(axis=1))
    return (int(whole[0]), len(exists) - 1 - int(whole[-1])) if len(whole) else (len(exists), 0)


@dataclass(frozen=True)
class Interleave:
    """Copies planes into lines; an item is a plane."""

    copy: RowCopy

    @property
    def name(self) -> str:
        return f"pcc_interleave_{self.copy}"

    @property
    def params(self) -> tuple[Param, ...]:
        numbers = ("rows", "channels", "x_image", "x_plane")
        return (
            Param("x", "f32*"),
            Param("y", "f32*", writes=True),
            *self.copy.params,
            *(Param(name) for name in numbers),
        )

    def body(self, k: "KernelBuilder") -> None:
        with k.work() as item:
            image, channel = k.divide(item, k["channels"])
            source = k.pointer(k["x"], k.let(image * k["x_image"] + channel * k["x_plane"]))
            with k.loop(0, k["rows"]) as row:
                self.copy.emit(
                    k, source, row, k.pointer(k["y"], (item * k["rows"] + row) * (self.copy.pitch * self.copy.lanes))
                )

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        x, y = np.asarray(args["x"]), np.asarray(args["y"])
        rows, channels = int(args["rows"]), int(args["channels"])
        lines = rows * self.copy.pitch * self.copy.lanes
        for item in range(begin, end):
            start = item // channels * int(args["x_image"]) + item % channels * int(args["x_plane"])
            y[item * lines : (item + 1) * lines] = self.copy.reference(args, x[start:], 0, rows).ravel()
