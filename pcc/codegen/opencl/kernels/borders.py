"""Zeros around planes: the memory of a value is another's before."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.opencl.kernels.numbers import numbers, place, tensor, whole_numbers
from pcc.codegen.opencl.planes import LEFT, Planes
from pcc.codegen.opencl.work_group import range_over
from pcc.codegen.program import View
from pcc.codegen.range import Range
from pcc.dtype import FLOAT32, DType

if TYPE_CHECKING:
    from pcc.codegen.opencl.builder import DeviceKernelBuilder
    from pcc.codegen.opencl.program import DeviceProgramBuilder


def emit_borders(view: View, layout: Planes, b: "DeviceProgramBuilder") -> None:
    """Writes zeros into all that a layout has around its planes."""
    images, channels, height, width = layout.shape
    edge = layout.border * layout.pitch
    around = 2 * edge + height * (layout.pitch - width)
    sizes = {"edge": edge, "width": width, "pitch": layout.pitch, "plane": layout.plane, "around": around}
    sizes["planes"] = images * channels
    b.call(ZeroBorders(view.dtype), {"y": view, **sizes}, range_over((around, 1, images * channels + 1)))


@dataclass(frozen=True)
class ZeroBorders:
    """An item is a number around a plane: those above, those beside its rows, those below; and what
    the last of all rows has right of it, where the next plane would begin."""

    dtype: DType

    arithmetic = FLOAT32

    @property
    def name(self) -> str:
        return f"pcc_zero_borders_{self.dtype.short}"

    @property
    def params(self) -> tuple[Param, ...]:
        sizes = numbers("edge", "width", "pitch", "plane", "around", "planes")
        return tensor("y", self.dtype, writes=True), *sizes

    def body(self, k: "DeviceKernelBuilder") -> None:
        item, _, plane = place(k, k["around"], 1)
        k.end_unless(k.either(plane < k["planes"], item < LEFT))
        beside = k.let(k["pitch"] - k["width"])
        row, column = k.divide(item - k["edge"], beside)
        left = k.let(k.select(column < LEFT, column, column + k["width"]))
        rows = k.let(k["around"] - 2 * k["edge"])
        within = k.let(
            k.select(item - k["edge"] < rows, k["edge"] + row * k["pitch"] + left, item + k["plane"] - k["around"])
        )
        at = k.let(plane * k["plane"] + k.select(item < k["edge"], item, within))
        k.store(k["y"], at, k.splat(0.0, 1))

    def reference(self, args: Mapping[str, Argument], range: Range) -> None:
        n, y = whole_numbers(args), np.asarray(args["y"])
        rows = (n["plane"] - 2 * n["edge"]) // n["pitch"]
        y[n["planes"] * n["plane"] :][:LEFT] = 0
        planes = y[: n["planes"] * n["plane"]].reshape(-1, n["plane"])
        planes[:, : n["edge"]] = planes[:, n["plane"] - n["edge"] :] = 0
        inside = planes[:, n["edge"] : n["plane"] - n["edge"]].reshape(-1, rows, n["pitch"])
        inside[:, :, :LEFT] = inside[:, :, LEFT + n["width"] :] = 0
