"""The kernel of convolutions on block-interleaved lines (see `interleave`): output-stationary, straight-line code for
each pattern.

The accumulators of a tile (``rows`` x ``columns`` positions of all blocks, of one filter group) stay in registers while
a filter's connections pass by, sorted by pattern. The code of a pattern loads each distinct line that its taps read
once, aligned, and feeds every accumulator that uses it. Nothing is looked up but the channel and the weights, which are
one sequential stream.

Outputs go to rows of ``y`` in pieces of a few columns, one for each lane: far apart, and in large planes to cache lines
that are not near. There the cache lines of the next filter's outputs are asked for while a filter is computed, some of
them before each pattern; without that, stores are half of the time. A max pool that follows takes place in the
registers: the windows of a tile become one value each, and only those are stored.

Every connection reads a tile's lines of its channel. Where those of all channels do not fit the L1 cache, and the
registers hold too few accumulators for a line to be used long, the L2 cache is what limits. Then channels may go by in
blocks whose lines do fit: a tile has its filters one after the other, block by block, and the sums of a filter wait in
the thread's memory until the next block.
"""

import hashlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.interleave import RowCopy
from pcc.codegen.kernels.sparse_tile import broadcast_weights
from pcc.codegen.kernels.tile_store import pooled, store_lines

if TYPE_CHECKING:
    from pcc.codegen.builder import Buffer, Expr, KernelBuilder

Pattern = tuple[tuple[int, int], ...]
"""The taps of a pattern as (row, column) of lines, dilation included."""


@dataclass(frozen=True)
class InterleavedTile:
    """An item is one row of tiles (a *strip*) of ``groups_per_item`` filter groups of ``share`` filters, of one image.

    With ``copy`` the input ``image`` is planes: what a strip reads is copied to lines in the thread's own memory ``x``,
    once for the items of a strip that a thread computes one after the other. Without, ``x`` holds the lines of whole
    planes.
    """

    rows: int
    columns: int
    share: int
    patterns: tuple[Pattern, ...]
    stride: tuple[int, int]
    pitch: int
    """Lines of a row."""
    lanes: int
    epilogue: Epilogue
    prefetch: bool = False
    """Whether the cache lines of outputs are asked for ahead."""
    copy: RowCopy | None = None
    window: tuple[int, int] = (1, 1)
    """Rows and columns of outputs of which only the maximum is stored; they divide those of the tile."""
    by_blocks: bool = False
    """Whether channels go by in blocks."""

    @property
    def name(self) -> str:
        digest = hashlib.sha256(repr(self.patterns).encode()).hexdigest()[:8]
        shape = f"{self.rows}x{self.columns}x{self.lanes}g{self.share}_p{self.pitch}s{self.stride[0]}x{self.stride[1]}"
        prefetch, copy = "_ahead" if self.prefetch else "", f"_strips{self.copy}" if self.copy else ""
        pool = "" if self.window == (1, 1) else f"_max{self.window[0]}x{self.window[1]}"
        patterns = f"{len(self.patterns)}x{len(self.patterns[0])}_{digest}"
        blocks = "_blocks" if self.by_blocks else ""
        return f"pcc_conv_interleaved_{shape}_{patterns}_{self.epilogue.symbol}{pool}{prefetch}{copy}{blocks}"

    @property
    def stored(self) -> tuple[int, int]:
        """(rows, columns) that a tile leaves in ``y``."""
        return self.rows // self.window[0], self.columns // self.window[1]

    @property
    def params(self) -> tuple[Param, ...]:
        pointers = [
            Param("x", "f32*", writes=self.copy is not None),
            Param("weight", "f32*"),
            Param("channels_at", "i32*"),
            Param("segments", "i32*"),
        ]
        pointers += [
            Param("channels", "i32*"),
            *self.epilogue.params,
            Param("y_at", "i32*"),
            Param("y", "f32*", writes=True),
        ]
        numbers = [
            "x_image",
            "groups",
            "groups_per_item",
            "chunks",
            "tiles_down",
            "tiles_across",
            "first_row",
            "y_image",
            "y_plane",
            "y_row",
        ]
        if self.epilogue.residual:
            pointers += [Param("residual", "f32*"), Param("r_at", "i32*")]
            numbers += ["r_image", "r_plane", "r_row"]
        if self.copy:
            pointers += [Param("image", "f32*"), *self.copy.params]
            numbers += ["x_channels", "x_plane", "strip_plane", "strip_rows"]
        if self.by_blocks:
            pointers += [Param("partial", "f32*", writes=True)]
            numbers += ["blocks"]
        return (*pointers, *(Param(name) for name in numbers))

    def body(self, k: "KernelBuilder") -> None:
        from tvm import tirx

        lanes, tile = k.lanes, self.rows * self.columns
        sums = k.local(self.share * tile * lanes)
        with k.work() as item:
            rest, chunk = k.divide(item, k["chunks"])
            image, down = k.divide(rest, k["tiles_down"])
            row = k.let(k["first_row"] + down * self.rows)
            first_line = k.let(row * self.stride[0])
            if self.copy:
                with k.when(tirx.Or(chunk == 0, item == k.begin)):
                    self._copy_strip(k, self.copy, k.let(image * k["x_image"]), first_line)
            row_at = 0 if self.copy else k.let(image * k["x_image"] + first_line * (self.pitch * lanes))
            first = k.let(chunk * k["groups_per_item"])
            last = k.let(tirx.Min(first + k["groups_per_item"], k["groups"]))
            with self._tiles(k, first, last) as (group, across, block):
                column = k.let(across * self.columns)
                x_at = k.let(row_at + column * (self.stride[1] * lanes))
                partial_at = (group - first) * (self.share * tile * lanes)
                self._begin(k, sums, group, block, partial_at)
                asked_for = self._following_outputs(k, group, image, row, column) if self.prefetch else []
                for pattern in range(len(self.patterns)):
                    for place in asked_for[pattern :: len(self.patterns)]:
                        k.prefetch(k["y"], place, write=True)
                    self._segment(k, pattern, block * k["groups"] + group, x_at, sums)
                with self._finished(k, sums, block, partial_at):
                    for f in range(self.share):
                        channel = k.let(k.load(k["channels"], group * self.share + f))
                        self._store(k, sums, f, channel, image, row, column)

    @contextmanager
    def _tiles(self, k: "KernelBuilder", first: "Expr", last: "Expr") -> Generator[tuple["Expr", "Expr", "Expr"]]:
        """(filter group, tile across, block of channels). Without blocks, tiles side by side come one after the other:
        they share the weights, and cache lines of the output."""
        if self.by_blocks:
            with k.loop(0, k["tiles_across"]) as across, k.loop(0, k["blocks"]) as block, k.loop(first, last) as group:
                yield group, across, block
        else:
            with k.loop(first, last) as group, k.loop(0, k["tiles_across"]) as across:
                yield group, across, 0

    def _begin(self, k: "KernelBuilder", sums: "Buffer", group: "Expr", block: "Expr", partial_at: "Expr") -> None:
        """The accumulators, from the bias or from the block of channels before."""

        def biases() -> None:
            for f in range(self.share):
                bias = k.let(k.splat(k.load(k["bias"], k.load(k["channels"], group * self.share + f)), k.lanes))
                for i in range(tile):
                    k.store(sums, (f * tile + i) * k.lanes, bias, k.lanes)

        tile = self.rows * self.columns
        if not self.by_blocks:
            biases()
            return
        with k.when_else(block < 1) as (start, further):
            with start:
                biases()
            with further:
                self._move(k, sums, 0, k["partial"], partial_at)

    @contextmanager
    def _finished(self, k: "KernelBuilder", sums: "Buffer", block: "Expr", partial_at: "Expr") -> Generator[None]:
        """Inside is what happens to accumulators that no further block of channels adds to; others wait."""
        if not self.by_blocks:
            yield
            return
        with k.when_else(block + 1 < k["blocks"]) as (further, done):
            with further:
                self._move(k, k["partial"], partial_at, sums, 0)
            with done:
                yield

    def _move(self, k: "KernelBuilder", target: "Buffer", at: "Expr", source: "Buffer", source_at: "Expr") -> None:
        for i in range(0, self.share * self.rows * self.columns * k.lanes, k.lanes):
            k.store(target, at + i, k.load(source, source_at + i, k.lanes), k.lanes)

    def _copy_strip(self, k: "KernelBuilder", copy: RowCopy, image_at: "Expr", first_line: "Expr") -> None:
        """Copies what the tiles of a strip read, of all channels."""
        with k.loop(0, k["x_channels"]) as channel, k.loop(0, k["strip_rows"]) as row:
            source = k.pointer(k["image"], image_at + channel * k["x_plane"])
            target = k.pointer(k["x"], channel * k["strip_plane"] + row * (self.pitch * self.lanes))
            copy.emit(k, source, k.let(first_line + row), target, ahead=k["x_plane"])

    def _following_outputs(
        self, k: "KernelBuilder", group: "Expr", image: "Expr", row: "Expr", column: "Expr"
    ) -> list["Expr"]:
        """Where the next filter group's rows of this tile begin in ``y``, in each lane."""
        from tvm import tirx

        first = k.let(tirx.Min(group + 1, k["groups"] - 1) * self.share)
        tile_at = k.let(image * k["y_image"] + row // self.window[0] * k["y_row"] + column // self.window[1])
        starts = [k.let(tile_at + k.load(k["channels"], first + f) * k["y_plane"]) for f in range(self.share)]
        return [
            start + r * k["y_row"] + k.load(k["y_at"], lane)
            for start, r, lane in product(starts, range(self.stored[0]), range(self.lanes))
        ]

    def _segment(self, k: "KernelBuilder", pattern: int, group: "Expr", x_at: "Expr", sums: "Buffer") -> None:
        """Adds the connections of one pattern of a filter group."""
        lanes, taps = k.lanes, len(self.patterns[pattern])
        segment = k.let(group * len(self.patterns) + pattern)
        begin, end = k.let(k.load(k["segments"], segment)), k.let(k.load(k["segments"], segment + 1))
        with k.loop(k.wide(begin), k.wide(end)) as connection:
            lines = k.pointer(k["x"], x_at + k.load(k["channels_at"], connection))
            weights = broadcast_weights(k, k["weight"], connection * (taps * self.share), taps * self.share)
            for (row, column), users in users_of_lines(
                self.patterns[pattern], self.rows, self.columns, self.stride
            ).items():
                line = k.let(k.load(lines, (row * self.pitch + column) * lanes, lanes))
                for tap, r, q in users:
                    for f in range(self.share):
                        place = ((f * self.rows + r) * self.columns + q) * lanes
                        k.store(sums, place, k.load(sums, place, lanes) + weights[tap * self.share + f] * line, lanes)

    def _store(
        self, k: "KernelBuilder", sums: "Buffer", f: int, channel: "Expr", image: "Expr", row: "Expr", column: "Expr"
    ) -> None:
        """One filter's tile through the epilogue, and the pool, to rows of ``y``."""
        y_at = k.let(
            image * k["y_image"]
            + channel * k["y_plane"]
            + row // self.window[0] * k["y_row"]
            + column // self.window[1]
        )
        r_at = (
            k.let(image * k["r_image"] + channel * k["r_plane"] + row * k["r_row"] + column)
            if self.epilogue.residual
            else 0
        )
        lines = [
            k.load(sums, (f * self.rows * self.columns + i) * k.lanes, k.lanes) for i in range(self.rows * self.columns)
        ]
        parameter = self.epilogue.parameter(k, channel)
        if not self.epilogue.residual:
            done = [k.let(self.epilogue.apply(k, line, None, k.lanes, parameter)) for line in lines]
            lines = pooled(k, done, self.columns, self.window)
        store_lines(k, lines, self.stored, self.epilogue, parameter, y_at, r_at)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        x, weight, y = (np.asarray(args[name]) for name in ("x", "weight", "y"))
        channels_at, segments, channels, y_at = (
            np.asarray(args[name]) for name in ("channels_at", "segments", "channels", "y_at")
        )
        n = {key: int(value) for key, value in args.items() if not isinstance(value, np.ndarray)}
        lanes = self.lanes
        taps, r, q = len(self.patterns[0]), np.arange(self.rows)[:, None, None], np.arange(self.columns)[:, None]
        weight = weight[: weight.size // (taps * self.share) * taps * self.share].reshape(-1, taps, self.share)
        for item in range(begin, end):
            rest, chunk = divmod(item, n["chunks"])
            image, down = divmod(rest, n["tiles_down"])
            row, first = n["first_row"] + down * self.rows, chunk * n["groups_per_item"]
            groups = range(first, min(first + n["groups_per_item"], n["groups"]))
            if self.copy:
                for place in range(n["x_channels"]):
                    plane = np.asarray(args["image"])[image * n["x_image"] + place * n["x_plane"] :]
                    lines = self.copy.reference(args, plane, row * self.stride[0], n["strip_rows"]).ravel()
                    x[place * n["strip_plane"] : place * n["strip_plane"] + lines.size] = lines
            x_at = 0 if self.copy else image * n["x_image"] + row * self.stride[0] * self.pitch * lanes
            for group, across in product(groups, range(n["tiles_across"])):
                column = across * self.columns
                outputs = channels[group * self.share : (group + 1) * self.share]
                sums = np.repeat(np.asarray(args["bias"])[outputs], self.rows * self.columns * lanes).reshape(
                    self.share, self.rows, self.columns, lanes
                )
                for block, (p, pattern) in product(range(n.get("blocks", 1)), enumerate(self.patterns)):
                    members = range(*segments[(block * n["groups"] + group) * len(self.patterns) + p :][:2])
                    for tap, (u, v) in enumerate(pattern):
                        line = (
                            (r * self.stride[0] + u) * self.pitch + (column + q) * self.stride[1] + v
                        ) * lanes + np.arange(lanes)
                        for connection in members:
                            sums += (
                                weight[connection, tap][:, None, None, None] * x[x_at + channels_at[connection] + line]
                            )
                (down_by, across_by), (rows, columns) = self.window, self.stored
                for values, channel in zip(sums, outputs, strict=True):

                    def at(
                        name: str,
                        row: int,
                        column: int,
                        lane_at: np.ndarray,
                        image: int = image,
                        channel: int = int(channel),
                    ) -> np.ndarray:
                        start = image * n[f"{name}_image"] + channel * n[f"{name}_plane"]
                        return start + (row + r) * n[f"{name}_row"] + column + q + lane_at[:lanes]

                    residual = (
                        np.asarray(args["residual"])[at("r", row, column, np.asarray(args["r_at"]))]
                        if self.epilogue.residual
                        else None
                    )
                    values = (
                        self.epilogue.reference(values, residual, self.epilogue.reference_parameter(args, channel))
                        .reshape(rows, down_by, columns, across_by, lanes)
                        .max((1, 3))
                    )
                    y[at("y", row // down_by, column // across_by, y_at)[:rows, :columns]] = values


def users_of_lines(
    pattern: Pattern, rows: int, columns: int, stride: tuple[int, int]
) -> dict[tuple[int, int], list[tuple[int, int, int]]]:
    """The distinct lines (row, column) that a tile reads, in order, and who uses each: (tap, row, column of the
    accumulator)."""
    users: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for tap, (down, right) in enumerate(pattern):
        for row in range(rows):
            for column in range(columns):
                users.setdefault((row * stride[0] + down, column * stride[1] + right), []).append((tap, row, column))
    return {line: users[line] for line in sorted(users)}
