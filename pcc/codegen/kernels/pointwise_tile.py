"""The kernel of sparse 1x1 convolution, output-stationary, several filters at once: an input that some of them keep is
loaded once.

An item is a tile of flat positions of some filter groups. A group's input channels are listed by the set of its filters
that keep them; the code for a set has its multiply-adds written out, so that loads, not decisions, are what is left.
Planes are flat and, where they start at cache lines (`ProgramBuilder.planes`), no load crosses one and whole vectors
are stored up to the end of the last line.

Where an item goes through blocks of channels, it takes all its groups on the first block, then on the next; sums wait
in the thread's own memory.

A plane of one position more than whole vectors (7x7 on x86) is one tile: that position of all filters of a group is a
vector of its own, whose lanes are filters.

A tile is a few cache lines of many planes, too few in a row for a processor to foresee. So each group asks for the
lines it will write, and for entries ahead; and where inputs do not stay in the L2 cache and come as one block of
channels, for its share of those that the next tile reads.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels import math, sparse_tile
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.runs import exact_run
from pcc.codegen.kernels.shared_tables import weights_of_word, words_of
from pcc.dtype import FLOAT32, DType

if TYPE_CHECKING:
    from pcc.codegen.builder import Buffer, Expr, KernelBuilder

LAST_LANES = 4
"""Lanes of the vector that holds a group's last position: the filters of the largest tiles."""

AHEAD = 3072
"""How many bytes ahead entries are asked for: in a network they come from behind the L2 cache. (MobileNetV2's last 1x1
layer, half of its weights: 191 us dense; 156 with 768, 144 with 1536, 136 with 3072; AMD EPYC of family 26.)"""


@dataclass(frozen=True)
class ConvSparsePointwise:
    """An item is one tile of ``size`` positions (whole vectors) of ``groups_per_item`` groups of ``filters`` filters,
    of one image.

    ``in_blocks``: the input channels come in several blocks, between which sums wait in ``partial``. ``prefetch``: a
    group asks for the lines of its outputs and, where ``channels`` are one block, for those of ``channels_ahead`` of
    the next tile. ``last``: the tile has one position more, and is the plane.
    """

    filters: int
    size: int
    epilogue: Epilogue
    in_blocks: bool = False
    prefetch: bool = False
    weights: DType = FLOAT32
    """What the weights in ``entries`` are."""
    last: bool = False
    shared: bool = False
    """Whether a channel is kept by all filters of a group or by none."""

    @property
    def name(self) -> str:
        form = (
            ("_shared" if self.shared else "")
            + ("_last" if self.last else "")
            + ("_blocks" if self.in_blocks else "")
            + ("_ahead" if self.prefetch else "")
        )
        return f"pcc_conv_sparse_pointwise_{self.filters}x{self.size}_{self.epilogue.symbol}{form}"

    @property
    def params(self) -> tuple[Param, ...]:
        tables = (Param("entries", "i32*"), Param("lists", "i32*"), Param("filters", "i32*"), *self.epilogue.params)
        numbers = (
            "x_image",
            "groups",
            "groups_per_item",
            "tiles",
            "tile_step",
            "blocks",
            "block_step",
            "positions",
            "stored",
            "y_image",
            "y_plane",
        )
        residual = (Param("residual", "f32*"), Param("r_image"), Param("r_plane")) if self.epilogue.residual else ()
        blocks = (Param("partial", "f32*", writes=True), Param("channel_blocks")) if self.in_blocks else ()
        ahead = (
            (Param("x_plane"), Param("channels"), Param("channels_ahead"))
            if self.prefetch and not self.in_blocks
            else ()
        )
        return (
            Param("x", "f32*"),
            *tables,
            Param("y", "f32*", writes=True),
            *(Param(name) for name in numbers),
            *residual,
            *blocks,
            *ahead,
        )

    def body(self, k: "KernelBuilder") -> None:
        from tvm import tirx

        with k.work() as number:
            image, _ = k.divide(number, k["tiles"] * k["blocks"])
            _, block = k.divide(k.divide(number, k["block_step"])[0], k["blocks"])
            _, tile = k.divide(k.divide(number, k["tile_step"])[0], k["tiles"])
            first = k.let(tile * self.size)
            start = k.let(tirx.Min(first, k["positions"] - self.size))
            x = k.pointer(k["x"], image * k["x_image"] + start)
            first_group = k.let(block * k["groups_per_item"])
            last_group = k.let(tirx.Min(first_group + k["groups_per_item"], k["groups"]))
            blocks = k["channel_blocks"] if self.in_blocks else 1
            with k.loop(0, blocks) as channels, k.loop(first_group, last_group) as group:
                filters = [k.let(k.load(k["filters"], group * self.filters + f)) for f in range(self.filters)]
                if self.prefetch and not self.in_blocks:
                    self._ask_for_inputs(k, x, group)
                if self.prefetch:
                    self._either(
                        k,
                        channels == blocks - 1,
                        lambda filters=filters: self._ask_for_outputs(k, filters, image, start),
                        lambda: None,
                    )
                kept = self.filters * self.size + (k.lanes if self.last else 0)
                sums, waits_at = k.local(kept), k.let((group - first_group) * kept)

                def store(sums: "Buffer" = sums, filters: "list[Expr]" = filters) -> None:
                    for f, filter in enumerate(filters):
                        self._store(k, sums, f, filter, image, start, first)

                self._either(
                    k,
                    channels == 0,
                    lambda: self._begin(k, sums, filters),
                    lambda: self._copy(k, k["partial"], waits_at, sums, 0),
                )
                self._lists(k, channels * k["groups"] + group, x, sums)
                self._either(k, channels == blocks - 1, store, lambda: self._copy(k, sums, 0, k["partial"], waits_at))

    def _either(
        self, k: "KernelBuilder", condition: "Expr", this: Callable[[], None], that: Callable[[], None]
    ) -> None:
        """``this`` where the condition holds, else ``that``; where channels are one block ``this``."""
        if not self.in_blocks:
            return this()
        with k.when_else(condition) as (then, otherwise):
            with then:
                this()
            with otherwise:
                that()

    def _ask_for_inputs(self, k: "KernelBuilder", x: "Buffer", group: "Expr") -> None:
        """A group's share of what the next tile reads."""
        first = k.let(group * k["channels_ahead"])
        with k.loop(first, k.let(math.smaller(first + k["channels_ahead"], k["channels"]))) as channel:
            lines = k.pointer(x, channel * k["x_plane"] + self.size)
            for v in range(0, self.size + self.last, k.lanes):
                k.prefetch(lines, v, write=False, soon=False)

    def _outputs(
        self, k: "KernelBuilder", filter: "Expr", image: "Expr", start: "Expr"
    ) -> "tuple[Buffer, Buffer | None]":
        """Where a tile's outputs of a filter begin, and their residual, if there is one."""
        y = k.pointer(k["y"], image * k["y_image"] + filter * k["y_plane"] + start)
        if not self.epilogue.residual:
            return y, None
        return y, k.pointer(k["residual"], image * k["r_image"] + filter * k["r_plane"] + start)

    def _ask_for_outputs(self, k: "KernelBuilder", filters: list["Expr"], image: "Expr", start: "Expr") -> None:
        for filter in filters:
            y, residual = self._outputs(k, filter, image, start)
            for v in range(0, self.size + self.last, k.lanes):
                k.prefetch(y, v, write=True)
                if residual is not None:
                    k.prefetch(residual, v, write=False)

    def _begin(self, k: "KernelBuilder", sums: "Buffer", filters: list["Expr"]) -> None:
        for f, filter in enumerate(filters):
            bias = k.let(k.splat(k.load(k["bias"], filter), k.lanes))
            for v in range(0, self.size, k.lanes):
                k.store(sums, f * self.size + v, bias, k.lanes)
        if self.last:
            k.store(sums, self.filters * self.size, k.splat(0.0, LAST_LANES), LAST_LANES)

    def _copy(
        self, k: "KernelBuilder", source: "Buffer", source_at: "Expr", target: "Buffer", target_at: "Expr"
    ) -> None:
        for v in range(0, self.filters * self.size, k.lanes):
            k.store(target, target_at + v, k.load(source, source_at + v, k.lanes), k.lanes)
        if self.last:
            at = self.filters * self.size
            k.store(target, target_at + at, k.load(source, source_at + at, LAST_LANES), LAST_LANES)

    def _sets(self) -> list[list[int]]:
        """The sets of a group's filters that have a list, in order."""
        sets = range((1 << self.filters) - 1 if self.shared else 1, 1 << self.filters)
        return [[f for f in range(self.filters) if members >> f & 1] for members in sets]

    def _lists(self, k: "KernelBuilder", row: "Expr", x: "Buffer", sums: "Buffer") -> None:
        """Adds the channels of a row of ``lists``: those that exactly these filters (a bit each) of the group keep, set
        by set."""
        sets = self._sets()
        lists = k.pointer(k["lists"], row * (1 + len(sets)))
        at = k.let(k.load(lists, 0))
        for number, users in enumerate(sets, 1):
            places, weights_of = k.pointer(k["entries"], at), k.pointer(k["entries"], at, self.weights)
            count = k.let(k.load(lists, number))
            last = k.local(LAST_LANES) if self.last else None
            if last is not None:
                k.store(last, 0, k.splat(0.0, LAST_LANES), LAST_LANES)
            with k.loop(k.wide(0), k.wide(count)) as place:
                entry = k.let(place * (1 + words_of(len(users), self.weights)))
                if self.prefetch:
                    k.ahead(places, entry, AHEAD, 1)
                channel = k.pointer(x, k.load(places, entry))
                weights = sparse_tile.broadcast_weights(
                    k, weights_of, (entry + 1) * weights_of_word(self.weights), len(users)
                )
                for v in range(0, self.size, k.lanes):
                    values = k.let(k.load(channel, v, k.lanes))
                    for f, weight in zip(users, weights, strict=True):
                        sum_at = f * self.size + v
                        k.store(sums, sum_at, k.load(sums, sum_at, k.lanes) + weight * values, k.lanes)
                if last is not None:
                    held = k.load(weights_of, (entry + 1) * weights_of_word(self.weights), LAST_LANES)
                    position = k.splat(k.load(channel, self.size), LAST_LANES)
                    k.store(last, 0, k.load(last, 0, LAST_LANES) + held * position, LAST_LANES)
            if last is not None:
                self._add_last(k, sums, users, k.let(k.load(last, 0, LAST_LANES)))
            at = k.let(at + count * (1 + words_of(len(users), self.weights)))

    def _add_last(self, k: "KernelBuilder", sums: "Buffer", users: list[int], last: "Expr") -> None:
        """Adds what a set of filters got at the last position; lanes behind theirs hold anything."""
        nothing, at = k.let(k.splat(0.0, LAST_LANES)), self.filters * self.size
        places = [users.index(f) if f in users else LAST_LANES for f in range(LAST_LANES)]
        k.store(sums, at, k.load(sums, at, LAST_LANES) + k.shuffle([last, nothing], places), LAST_LANES)

    def _store(
        self, k: "KernelBuilder", sums: "Buffer", f: int, filter: "Expr", image: "Expr", start: "Expr", first: "Expr"
    ) -> None:
        """One filter's tile through the epilogue."""
        from tvm import tirx

        size = self.size
        y, residual = self._outputs(k, filter, image, start)
        parameter = self.epilogue.parameter(k, filter)

        def store(place: "Expr", value: "Expr", lanes: int) -> None:
            addend = None if residual is None else k.load(residual, place, lanes)
            k.store(y, place, self.epilogue.apply(k, value, addend, lanes, parameter), lanes)

        if self.last:
            for v in range(0, size, k.lanes):
                store(v, k.load(sums, f * size + v, k.lanes), k.lanes)
            last = k.shuffle([k.load(sums, self.filters * size, LAST_LANES)], [f])
            return store(size, k.let(last + k.load(k["bias"], filter)), 1)
        with k.when_else(tirx.And(start == first, start + size <= k["stored"])) as (then, otherwise):
            with then:
                for v in range(0, size, k.lanes):
                    store(v, k.load(sums, f * size + v, k.lanes), k.lanes)
            with otherwise:
                held = k.local(size)
                for v in range(0, size, k.lanes):
                    k.store(held, v, k.load(sums, f * size + v, k.lanes), k.lanes)
                skipped = k.let(first - start)
                exact_run(
                    k,
                    k.let(math.smaller(k["stored"] - first, size)),
                    lambda i, lanes: store(skipped + i, k.load(held, skipped + i, lanes), lanes),
                )

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        x, y, entries, lists, filters, bias = (
            np.asarray(args[name]) for name in ("x", "y", "entries", "lists", "filters", "bias")
        )
        n = {key: int(value) for key, value in args.items() if not isinstance(value, np.ndarray)}
        sets, size = self._sets(), self.size + self.last
        for item in range(begin, end):
            image, block = item // (n["tiles"] * n["blocks"]), item // n["block_step"] % n["blocks"]
            first = item // n["tile_step"] % n["tiles"] * size
            start = min(first, n["positions"] - size)
            for group in range(block * n["groups_per_item"], min((block + 1) * n["groups_per_item"], n["groups"])):
                outputs = filters[group * self.filters : (group + 1) * self.filters]
                sums = np.repeat(bias[outputs, None], size, axis=1)
                for channels in range(n.get("channel_blocks", 1)):
                    row = (channels * n["groups"] + group) * (1 + len(sets))
                    at, *counts = lists[row : row + 1 + len(sets)].tolist()
                    for users, count in zip(sets, counts, strict=True):
                        words = 1 + words_of(len(users), self.weights)
                        of_list = entries[at : at + count * words].reshape(count, words)
                        inputs = x[image * n["x_image"] + start + of_list[:, :1] + np.arange(size)]
                        weights = np.ascontiguousarray(of_list[:, 1:]).view(self.weights.numpy)[:, : len(users)]
                        sums[users] += weights.astype(bias.dtype).T @ inputs
                        at += of_list.size
                stop = min(start + size, n["stored"])
                for values, channel in zip(sums[:, first - start : stop - start], outputs.tolist(), strict=True):
                    planes = {
                        name: image * n[f"{name}_image"] + channel * n[f"{name}_plane"]
                        for name in ("y", "r")
                        if f"{name}_image" in n
                    }
                    residual = (
                        np.asarray(args["residual"])[planes["r"] + first : planes["r"] + stop]
                        if self.epilogue.residual
                        else None
                    )
                    y[planes["y"] + first : planes["y"] + stop] = self.epilogue.reference(
                        values, residual, self.epilogue.reference_parameter(args, channel)
                    )
