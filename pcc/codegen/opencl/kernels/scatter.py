"""Values written, or added, to places along rows that a tensor names. An item is a row, whose values are put in one
after the other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels.scatter import ScatterRows
from pcc.codegen.opencl.kernels.columns import combine
from pcc.codegen.opencl.kernels.map import COPY, emit_map
from pcc.codegen.opencl.kernels.numbers import numbers, place, tensor, whole_numbers
from pcc.codegen.opencl.work_group import range_over
from pcc.codegen.program import View
from pcc.codegen.range import Range
from pcc.dtype import FLOAT32

if TYPE_CHECKING:
    from pcc.codegen.opencl.builder import DeviceKernelBuilder
    from pcc.codegen.opencl.program import DeviceProgramBuilder


def emit_scatter(b: "DeviceProgramBuilder", y: View, x: View, index: View, updates: View, mode: str) -> None:
    """``y = scatter(x, index, updates)``, see ``pcc::scatter``."""
    (rows, size), places = x.shape, index.shape[1]
    emit_map(b.node, y, [x], COPY, b)
    tensors = {"index": index, "updates": updates, "y": y}
    offsets = {f"{name}_offset": view.offset for name, view in tensors.items()}
    b.call(
        Scatter(mode), {**tensors, **offsets, "rows": rows, "size": size, "places": places}, range_over((rows, 1, 1))
    )


@dataclass(frozen=True)
class Scatter:
    mode: str

    arithmetic = FLOAT32

    @property
    def name(self) -> str:
        return f"pcc_scatter_{self.mode}"

    @property
    def params(self) -> tuple[Param, ...]:
        tensors = tensor("index", FLOAT32), tensor("updates", FLOAT32), tensor("y", FLOAT32, writes=True)
        return *tensors, *numbers("index_offset", "updates_offset", "y_offset", "rows", "size", "places")

    def body(self, k: "DeviceKernelBuilder") -> None:
        row, _, _ = place(k, k["rows"], 1)
        first, y = k.let(row * k["places"]), k.let(k["y_offset"] + row * k["size"])
        with k.loop(k["places"]) as number:
            index = k.load(k["index"], k["index_offset"] + first + number)
            at = k.let(y + k.whole_within(index, k["size"] - 1))
            update = k.load(k["updates"], k["updates_offset"] + first + number)
            value = update if self.mode == "set" else combine(k, self.mode, k.load(k["y"], at), update)
            k.store(k["y"], at, value)

    def reference(self, args: Mapping[str, Argument], range: Range) -> None:
        n = whole_numbers(args)
        tensors = {name: np.asarray(args[name])[n[f"{name}_offset"] :] for name in ("index", "updates", "y")}
        ScatterRows(self.mode).reference({**tensors, "size": n["size"], "places": n["places"]}, 0, n["rows"])
