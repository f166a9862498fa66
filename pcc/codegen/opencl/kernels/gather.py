"""Elements, or weighted sums of some, from places along a dimension that a table or a computed tensor names; the
meaning is that of ``pcc::gather``. An item is a number of the result."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.layers import Gather
from pcc.codegen.opencl.kernels.numbers import (
    numbers,
    of_numbers,
    place,
    symbol_of,
    tensor,
    whole_numbers,
)
from pcc.codegen.opencl.work_group import range_over
from pcc.codegen.range import Range
from pcc.dtype import FLOAT32, DType

if TYPE_CHECKING:
    from pcc.codegen.opencl.builder import DeviceKernelBuilder
    from pcc.codegen.opencl.program import DeviceProgramBuilder


def emit_gather(layer: Gather, b: "DeviceProgramBuilder") -> None:
    """``y = gather(x, index, weight)``."""
    (batch, channels, size, inner), (index_batch, taps, places) = layer.x.shape, layer.index.shape
    tensors = {"x": layer.x, "index": layer.index, "y": layer.y}
    if layer.weight is not None:
        tensors["weight"] = layer.weight
    weight = None if layer.weight is None else layer.weight.dtype
    b.call(
        GatherNumbers((layer.x.dtype, layer.index.dtype, layer.y.dtype), weight),
        {
            **tensors,
            **{f"{name}_offset": view.offset for name, view in tensors.items()},
            "channels": channels,
            "size": size,
            "inner": inner,
            "taps": taps,
            "places": places,
            "index_batch": taps * places if index_batch > 1 else 0,
        },
        range_over((inner, places, batch * channels)),
    )


@dataclass(frozen=True)
class GatherNumbers:
    """``index`` is int32, or a number that is clamped to the places that there are."""

    types: tuple[DType, DType, DType]
    """Of ``x``, of the index, of ``y``."""
    weight: DType | None

    arithmetic = FLOAT32

    @property
    def name(self) -> str:
        weight = "" if self.weight is None else f"_by_{self.weight.short}"
        return f"pcc_gather_{symbol_of(*self.types)}{weight}"

    @property
    def params(self) -> tuple[Param, ...]:
        weight = () if self.weight is None else (tensor("weight", self.weight), *numbers("weight_offset"))
        sizes = ("x_offset", "index_offset", "y_offset", "channels", "size", "inner", "taps", "places", "index_batch")
        return (
            tensor("x", self.types[0]),
            tensor("index", self.types[1]),
            tensor("y", self.types[2], writes=True),
            *weight,
            *numbers(*sizes),
        )

    def body(self, k: "DeviceKernelBuilder") -> None:
        k = of_numbers(k)
        inside, out, plane = place(k, k["inner"], k["places"])
        image, _ = k.divide(plane, k["channels"])
        entry = k.let(image * k["index_batch"] + out)
        x = k.let(k["x_offset"] + plane * (k["size"] * k["inner"]) + inside)
        total = k.variable(k.splat(0.0))
        with k.loop(k["taps"]) as tap:
            at = k.let(entry + tap * k["places"])
            if self.types[1].is_float:
                index = k.whole_within(k.load(k["index"], k["index_offset"] + at), k["size"] - 1)
            else:
                index = k.word(k["index"], k["index_offset"] + at)
            value = k.load(k["x"], x + index * k["inner"])
            if self.weight is not None:
                value = value * k.load(k["weight"], k["weight_offset"] + at)
            total.value = total.value + value
        k.store(k["y"], k["y_offset"] + (plane * k["places"] + out) * k["inner"] + inside, total.value)

    def reference(self, args: Mapping[str, Argument], range: Range) -> None:
        n, x, y = whole_numbers(args), np.asarray(args["x"]), np.asarray(args["y"])
        for plane in np.arange(range.global_size[2]):
            entry = int(plane) // n["channels"] * n["index_batch"]
            entry = entry + np.arange(n["taps"])[:, None] * n["places"] + np.arange(n["places"])
            index = np.nan_to_num(np.asarray(args["index"])[n["index_offset"] + entry])
            index = np.clip(index, 0, n["size"] - 1).astype(int)
            start = n["x_offset"] + int(plane) * n["size"] * n["inner"]
            rows = x[start:][: n["size"] * n["inner"]].reshape(n["size"], n["inner"])[index].astype(np.float32)
            if self.weight is not None:
                rows = rows * np.asarray(args["weight"])[n["weight_offset"] + entry][..., None].astype(np.float32)
            start = n["y_offset"] + int(plane) * n["places"] * n["inner"]
            y[start:][: n["places"] * n["inner"]] = rows.sum(0).ravel().astype(y.dtype)
