"""Dense convolution of any geometry, number by number: for windows, strides and paddings that the tiles of
`conv_direct` do not reach. An item is a number of the result, and asks where the map ends."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels.epilogue import Epilogue, channel_arrays
from pcc.codegen.layers import Conv2d
from pcc.codegen.opencl.kernels.epilogue import apply, parameter_at
from pcc.codegen.opencl.kernels.numbers import (
    elements,
    numbers,
    of_numbers,
    place,
    symbol_of,
    tensor,
    whole_numbers,
)
from pcc.codegen.opencl.kernels.window import (
    WINDOW_NUMBERS,
    over_window,
    reference_windows,
    window_begin,
    window_numbers,
)
from pcc.codegen.opencl.places import PLANE_NUMBERS, plane_numbers
from pcc.codegen.opencl.work_group import range_over
from pcc.codegen.range import Range
from pcc.dtype import FLOAT32, DType, dtype_of

if TYPE_CHECKING:
    from pcc.codegen.opencl.builder import DeviceKernelBuilder
    from pcc.codegen.opencl.program import DeviceProgramBuilder


def emit_conv(layer: Conv2d, b: "DeviceProgramBuilder") -> None:
    """Any convolution, of tensors of any strides."""
    assert isinstance(layer.weight, np.ndarray)
    (images, filters, out_height, out_width), (height, width) = layer.y.shape, layer.x.shape[2:]
    inputs = layer.weight.shape[1]
    tensors, places = {"x": layer.x, "y": layer.y}, plane_numbers(layer.x, layer.y)
    if layer.residual is not None:
        tensors["residual"] = layer.residual
        words = ("offset", "image", "plane", "pitch")
        added = (layer.residual.offset, *layer.residual.strides[:3])
        places |= {f"residual_{word}": value for word, value in zip(words, added, strict=True)}
    b.call(
        ConvNumbers(
            (layer.x.dtype, dtype_of(layer.weight.dtype), layer.y.dtype),
            Epilogue(layer.residual is not None, layer.activation),
        ),
        {
            **tensors,
            "weight": b.constant(f"{layer.name}.weight", layer.weight),
            **b.named_constants(layer.name, channel_arrays(layer, lambda values: values.astype(np.float32))),
            **places,
            "height": height,
            "width": width,
            "out_height": out_height,
            "out_width": out_width,
            "inputs": inputs,
            "group": filters // layer.groups,
            **window_numbers(layer.geometry),
        },
        range_over((out_width, out_height, images * filters)),
        macs=images * int(np.count_nonzero(layer.weight)) * out_height * out_width,
        dense_macs=images * layer.weight.size * out_height * out_width,
    )


@dataclass(frozen=True)
class ConvNumbers:
    """``group`` is the number of filters of a group, ``inputs`` that of its channels."""

    types: tuple[DType, DType, DType]
    """Of ``x``, of the weight, of ``y`` and the residual."""
    epilogue: Epilogue

    arithmetic = FLOAT32

    @property
    def name(self) -> str:
        return f"pcc_conv_any_{self.epilogue.symbol}_{symbol_of(*self.types)}"

    @property
    def params(self) -> tuple[Param, ...]:
        places = [f"residual_{word}" for word in ("offset", "image", "plane", "pitch")]
        sizes = ("height", "width", "out_height", "out_width", "inputs", "group")
        return (
            tensor("x", self.types[0]),
            tensor("weight", self.types[1]),
            *self.epilogue.params,
            tensor("y", self.types[2], writes=True),
            *((tensor("residual", self.types[2]), *numbers(*places)) if self.epilogue.residual else ()),
            *numbers(*PLANE_NUMBERS, *sizes, *WINDOW_NUMBERS),
        )

    def body(self, k: "DeviceKernelBuilder") -> None:
        k = of_numbers(k)
        column, row, plane = place(k, k["out_width"], k["out_height"])
        image, filter_place = k.divide(plane, k["channels"])
        group, _ = k.divide(filter_place, k["group"])
        x = k.let(k["x_offset"] + image * k["x_image"] + group * (k["inputs"] * k["x_plane"]))
        size = k.let(k["rows"] * k["columns"])
        weight = k.let(filter_place * (k["inputs"] * size))
        begin = window_begin(k, row, column)
        total = k.variable(k.load(k["bias"], filter_place))
        with over_window(k, *begin) as (window_row, window_column, at_row, at_column):
            inside = k.let(x + at_row * k["x_pitch"] + at_column)
            tap = k.let(weight + window_row * k["columns"] + window_column)
            with k.loop(k["inputs"]) as channel:
                value = k.load(k["x"], inside + channel * k["x_plane"])
                total.value = k.mad(value, k.load(k["weight"], tap + channel * size), total.value)
        added = None
        if self.epilogue.residual:
            at = k["residual_offset"] + image * k["residual_image"] + filter_place * k["residual_plane"]
            added = k.load(k["residual"], at + row * k["residual_pitch"] + column)
        at = k["y_offset"] + image * k["y_image"] + filter_place * k["y_plane"] + row * k["y_pitch"] + column
        parameter = parameter_at(k, self.epilogue, filter_place)
        k.store(k["y"], at, apply(k, self.epilogue, total.value, added, parameter))

    def reference(self, args: Mapping[str, Argument], range: Range) -> None:
        n, x, y = whole_numbers(args), np.asarray(args["x"]), np.asarray(args["y"])
        shape = n["inputs"], n["rows"], n["columns"]
        size = n["out_height"], n["out_width"]
        places, inside = reference_windows(n)
        for plane in np.arange(range.global_size[2]):
            image, filter_place = divmod(int(plane), n["channels"])
            first = n["x_offset"] + image * n["x_image"] + filter_place // n["group"] * n["inputs"] * n["x_plane"]
            starts = first + np.arange(shape[0])[:, None, None, None, None] * n["x_plane"]
            values = np.where(inside, x[np.where(inside, starts + places, first)].astype(np.float32), 0)
            weight = np.asarray(args["weight"])[filter_place * np.prod(shape) :][: np.prod(shape)].reshape(shape)
            sums = (
                np.einsum("cyxrs,crs->yx", values, weight.astype(np.float32)) + np.asarray(args["bias"])[filter_place]
            )
            residual = None
            if self.epilogue.residual:
                start = n["residual_offset"] + image * n["residual_image"] + filter_place * n["residual_plane"]
                at = elements(start, size, (n["residual_pitch"], 1))
                residual = np.asarray(args["residual"])[at].astype(np.float32)
            at = elements(n["y_offset"] + image * n["y_image"] + filter_place * n["y_plane"], size, (n["y_pitch"], 1))
            parameter = self.epilogue.reference_parameter(args, filter_place)
            y[at] = self.epilogue.reference(sums.astype(np.float32), residual, parameter).astype(y.dtype)
