"""Elements, or weighted sums of some, from places along one dimension that a table or a computed tensor names.

What an index can say is a gather: reversal, mirrored and circular borders, windows, embeddings; with weights,
interpolation along an axis by any filter and sampling at computed points. Without an inner dimension outputs are in the
lanes and inputs are collected; else whole runs are read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels import math
from pcc.codegen.kernels.runs import exact_run
from pcc.codegen.layers import Gather
from pcc.codegen.program import ProgramBuilder, View
from pcc.dtype import FLOAT32

if TYPE_CHECKING:
    from pcc.codegen.builder import Expr, KernelBuilder

ITEM_ELEMENTS = 16384
"""Inputs an item should read."""


def emit_gather(layer: Gather, b: ProgramBuilder) -> None:
    """``y = gather(x, index, weight)``."""
    (batch, channels, size, inner), (index_batch, taps, places) = layer.x.shape, layer.index.shape
    kernel = GatherRows(layer.index.dtype == FLOAT32, layer.weight is not None, inner > 1)
    places_per_item = max(1, min(places, ITEM_ELEMENTS // (taps * inner)))
    weight: dict[str, View] = {} if layer.weight is None else {"weight": layer.weight}
    numbers = {
        "channels": channels,
        "size": size,
        "inner": inner,
        "taps": taps,
        "places": places,
        "places_per_item": places_per_item,
    }
    table = taps * places if index_batch > 1 else 0
    b.call(
        kernel,
        {"x": layer.x, "index": layer.index, **weight, "y": layer.y, **numbers, "index_batch": table},
        work=batch * channels * -(-places // places_per_item),
    )


@dataclass(frozen=True)
class GatherRows:
    """Items are (image, channel, run of places). ``computed``: the index is fp32, and may be out of range; ``runs``:
    the inner dimension is not 1."""

    computed: bool
    weighted: bool
    runs: bool

    @property
    def name(self) -> str:
        return "_".join(["pcc_gather", *(word for word in ("computed", "weighted", "runs") if getattr(self, word))])

    @property
    def params(self) -> tuple[Param, ...]:
        weight = (Param("weight", "f32*"),) if self.weighted else ()
        numbers = ("channels", "size", "inner", "taps", "places", "places_per_item", "index_batch")
        pointers = (
            Param("x", "f32*"),
            Param("index", "f32*" if self.computed else "i32*"),
            *weight,
            Param("y", "f32*", writes=True),
        )
        return *pointers, *(Param(name) for name in numbers)

    def body(self, k: "KernelBuilder") -> None:
        chunks = k.let((k["places"] + k["places_per_item"] - 1) // k["places_per_item"])
        total = k.local(k.lanes)
        with k.work() as item:
            plane, first = k.let(item // chunks), k.let(item % chunks * k["places_per_item"])
            count = k.let(math.smaller(k["places"] - first, k["places_per_item"]))
            table = k.let(plane // k["channels"] * k["index_batch"] + first)
            x_at, y_at = k.let(plane * (k["size"] * k["inner"])), k.let((plane * k["places"] + first) * k["inner"])

            def gather(entry: "Expr", inside: "Expr", out: "Expr", lanes: int) -> None:
                """Outputs from ``out`` on by the table's entries from ``entry`` on; or by that entry alone, ``inside``
                its run."""

                def term(tap: "Expr") -> "Expr":
                    at = k.let(entry + tap * k["places"])
                    value = self._element(k, x_at, at, inside, lanes)
                    if not self.weighted:
                        return value
                    return value * (
                        k.splat(k.load(k["weight"], at), lanes) if self.runs else k.load(k["weight"], at, lanes)
                    )

                if not self.weighted:
                    k.store(k["y"], out, term(0), lanes)
                    return
                k.store(total, 0, term(0), lanes)  # not zeros: for the case that there is no tap LLVM would call memset
                with k.loop(1, k["taps"]) as tap:
                    k.store(total, 0, k.load(total, 0, lanes) + term(tap), lanes)
                k.store(k["y"], out, k.load(total, 0, lanes), lanes)

            if not self.runs:
                exact_run(k, count, lambda offset, lanes: gather(table + offset, 0, y_at + offset, lanes))
                return
            with k.loop(0, count) as place:
                start = k.let(y_at + place * k["inner"])
                exact_run(k, k["inner"], lambda i, lanes: gather(table + place, i, start + i, lanes))

    def _element(self, k: "KernelBuilder", x_at: "Expr", entry: "Expr", inside: "Expr", lanes: int) -> "Expr":
        """The inputs of an output: one run of memory, or a place for each lane."""
        if self.runs:
            return k.load(k["x"], x_at + k.let(self._index(k, entry, 1)) * k["inner"] + inside, lanes)
        index = k.let(self._index(k, entry, lanes))
        return k.load_at(k["x"], x_at + index if lanes == 1 else k.splat(x_at, lanes) + index, lanes)

    def _index(self, k: "KernelBuilder", entry: "Expr", lanes: int) -> "Expr":
        index = k.load(k["index"], entry, lanes)
        return math.whole_within(k, index, k["size"] - 1, lanes) if self.computed else index

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        n = {key: int(value) for key, value in args.items() if isinstance(value, int)}
        x, y = np.asarray(args["x"]), np.asarray(args["y"])
        chunks = -(-n["places"] // n["places_per_item"])
        for item in range(begin, end):
            plane, chunk = divmod(item, chunks)
            place = np.arange(chunk * n["places_per_item"], min(n["places"], (chunk + 1) * n["places_per_item"]))
            entry = plane // n["channels"] * n["index_batch"] + np.arange(n["taps"])[:, None] * n["places"] + place
            index = np.clip(np.nan_to_num(np.asarray(args["index"])[entry]), 0, n["size"] - 1).astype(int)
            rows = x[plane * n["size"] * n["inner"] :][: n["size"] * n["inner"]].reshape(n["size"], n["inner"])[index]
            value = (rows * np.asarray(args["weight"])[entry][..., None]).sum(0) if self.weighted else rows[0]
            y[(plane * n["places"] + place[:, None]) * n["inner"] + np.arange(n["inner"])] = value
