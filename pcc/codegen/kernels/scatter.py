"""Values written, or added, to places along rows that a table or a computed tensor names: what max unpooling and
assignment by index are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels import math
from pcc.codegen.kernels.copy import emit_copy
from pcc.codegen.layers import Copy
from pcc.codegen.program import ProgramBuilder, View

if TYPE_CHECKING:
    from pcc.codegen.builder import KernelBuilder


def emit_scatter(b: ProgramBuilder, y: View, x: View, index: View, updates: View, mode: str) -> None:
    """``y = scatter(x, index, updates)``, see ``pcc::scatter``."""
    rows, size = x.shape
    emit_copy(Copy(b.node, x, y), b)
    b.call(
        ScatterRows(mode),
        {"index": index, "updates": updates, "y": y, "size": size, "places": index.shape[1]},
        work=rows,
    )


@dataclass(frozen=True)
class ScatterRows:
    """Items are rows of ``y``, whose values are put in one after the other."""

    mode: str

    @property
    def name(self) -> str:
        return f"pcc_scatter_{self.mode}"

    @property
    def params(self) -> tuple[Param, ...]:
        return (
            Param("index", "f32*"),
            Param("updates", "f32*"),
            Param("y", "f32*", writes=True),
            Param("size"),
            Param("places"),
        )

    def body(self, k: "KernelBuilder") -> None:
        with k.work() as row:
            start, first = k.let(row * k["size"]), k.let(row * k["places"])
            with k.loop(0, k["places"]) as place:
                at = k.let(start + math.whole_within(k, k.let(k.load(k["index"], first + place)), k["size"] - 1, 1))
                update = k.let(k.load(k["updates"], first + place))
                k.store(
                    k["y"],
                    at,
                    update if self.mode == "set" else math.combine(k, self.mode, k.let(k.load(k["y"], at)), update),
                )

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        combine = {
            "set": lambda old, new: new,
            "sum": np.add,
            "prod": np.multiply,
            "max": np.maximum,
            "min": np.minimum,
        }[self.mode]
        size, places = int(args["size"]), int(args["places"])  # type: ignore[arg-type]
        y, index, updates = (np.asarray(args[name]) for name in ("y", "index", "updates"))
        for row in range(begin, end):
            out = y[row * size :][:size]
            for place in range(row * places, (row + 1) * places):
                at = int(np.clip(np.nan_to_num(index[place]), 0, size - 1))
                out[at] = combine(out[at], updates[place])
