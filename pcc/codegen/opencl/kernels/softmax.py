"""Softmax and log-softmax over a dimension of a contiguous tensor, shifted by the maximum so that nothing overflows. An
item is all that is summed up together."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.layers import Softmax
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


def emit_softmax(layer: Softmax, b: "DeviceProgramBuilder") -> None:
    """``y = softmax(x)`` over ``dim``."""
    shape, dim = layer.x.shape, layer.dim % len(layer.x.shape)
    outer, size, inner = prod(shape[:dim]), shape[dim], prod(shape[dim + 1 :])
    places = {"x_offset": layer.x.offset, "y_offset": layer.y.offset, "size": size, "inner": inner, "outer": outer}
    kernel = SoftmaxOf(layer.log, (layer.x.dtype, layer.y.dtype))
    b.call(kernel, {"x": layer.x, "y": layer.y, **places}, range_over((inner, outer, 1)))


@dataclass(frozen=True)
class SoftmaxOf:
    """Of (outer, size, inner), over the size."""

    log: bool
    types: tuple[DType, DType]

    arithmetic = FLOAT32

    @property
    def name(self) -> str:
        return f"pcc_{'log_' if self.log else ''}softmax_{symbol_of(*self.types)}"

    @property
    def params(self) -> tuple[Param, ...]:
        return (
            tensor("x", self.types[0]),
            tensor("y", self.types[1], writes=True),
            *numbers("x_offset", "y_offset", "size", "inner", "outer"),
        )

    def body(self, k: "DeviceKernelBuilder") -> None:
        k = of_numbers(k)
        column, row, _ = place(k, k["inner"], k["outer"])
        first = k.let(row * (k["size"] * k["inner"]) + column)
        x, y = k.let(k["x_offset"] + first), k.let(k["y_offset"] + first)
        highest, total = k.variable(k.splat(float("-inf"))), k.variable(k.splat(0.0))
        with k.loop(k["size"]) as place_of:
            highest.value = k.larger(highest.value, k.load(k["x"], x + place_of * k["inner"]))
        with k.loop(k["size"]) as place_of:
            total.value = total.value + k.call("exp", k.load(k["x"], x + place_of * k["inner"]) - highest.value)
        with k.loop(k["size"]) as place_of:
            shifted = k.let(k.load(k["x"], x + place_of * k["inner"]) - highest.value)
            value = shifted - k.call("log", total.value) if self.log else k.call("exp", shifted) / total.value
            k.store(k["y"], y + place_of * k["inner"], value)

    def reference(self, args: Mapping[str, Argument], range: Range) -> None:
        n, x, y = whole_numbers(args), np.asarray(args["x"]), np.asarray(args["y"])
        shape = n["outer"], n["size"], n["inner"]
        values = x[n["x_offset"] :][: prod(shape)].reshape(shape).astype(np.float32)
        shifted = values - values.max(1, keepdims=True)
        total = np.exp(shifted).sum(1, keepdims=True)
        result = shifted - np.log(total) if self.log else np.exp(shifted) / total
        y[n["y_offset"] :][: prod(shape)] = result.ravel().astype(y.dtype)
