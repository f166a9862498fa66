"""Copies and fills of strided views: what concat, slice, permute and padding become when they cannot be views."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels import math
from pcc.codegen.kernels.nest import NEST_PARAMS, Nest, nest_of, reference_rows, row_of, rows_of_work
from pcc.codegen.kernels.runs import copy_run, fill_run
from pcc.codegen.layers import Convert, Copy, Fill
from pcc.codegen.program import ProgramBuilder
from pcc.dtype import FLOAT32, DType

if TYPE_CHECKING:
    from pcc.codegen.builder import KernelBuilder


def emit_copy(layer: Copy, b: ProgramBuilder) -> None:
    """``y[...] = x[...]``."""
    if not prod(layer.y.shape):
        return
    nest = _copy_nest(layer)
    kernel = CopyRows(unit=nest.run_strides == (1, 1), dtype=layer.x.dtype)
    arithmetic = layer.x.dtype if layer.x.dtype.is_float else FLOAT32
    b.call(kernel, {"y": layer.y, "x": layer.x, **nest.arguments(b, layer.name)}, work=nest.work, arithmetic=arithmetic)


def emit_fill(layer: Fill, b: ProgramBuilder) -> None:
    """``y[...] = value``."""
    name, y, value = layer.name, layer.y, layer.value
    if not prod(y.shape):
        return
    nest = nest_of(y.shape, [y.strides])
    b.call(
        FillRows(unit=nest.run_strides == (1,)),
        {"y": y, "value": value, **nest.arguments(b, name)},
        work=nest.work,
        arithmetic=y.dtype,
    )


def emit_convert(layer: Convert, b: ProgramBuilder) -> None:
    """``y[...] = x[...]`` in the element type of ``y``."""
    x, y, size = layer.x, layer.y, prod(layer.y.shape)
    b.call(ConvertElements(x.dtype, y.dtype), {"y": y, "x": x, "size": size}, work=-(-size // CONVERTED_PER_ITEM))


def _copy_nest(layer: Copy) -> Nest:
    """The last dimension innermost; where ``x`` is not contiguous along it, the dimension along which it is becomes the
    rows and runs are cut short, so that an item uses whole cache lines of ``x`` while it has them (a transposition by
    tiles)."""
    nest = nest_of(layer.x.shape, [layer.y.strides, layer.x.strides])
    dims = list(range(len(nest.sizes)))
    along_x = [dim for dim in dims[:-1] if nest.strides[dim][1] == 1]
    if nest.run_strides[1] == 1 or not along_x:
        return nest
    dims = [*(dim for dim in dims[:-1] if dim != along_x[-1]), along_x[-1], dims[-1]]
    return Nest(tuple(nest.sizes[dim] for dim in dims), tuple(nest.strides[dim] for dim in dims), run_limit=256)


@dataclass(frozen=True)
class CopyRows:
    """Copies rows of any element type; ``unit`` if both tensors are contiguous along them."""

    unit: bool
    dtype: DType = FLOAT32

    @property
    def name(self) -> str:
        return f"pcc_copy_{self.dtype.short}" + ("" if self.unit else "_strided")

    @property
    def params(self) -> tuple[Param, ...]:
        elements = f"{self.dtype.short}*"
        return (Param("y", elements, writes=True), Param("x", elements), *NEST_PARAMS)

    def body(self, k: "KernelBuilder") -> None:
        with rows_of_work(k, tensors=2) as ((y_at, x_at), length, (y_stride, x_stride)):
            if self.unit:
                copy_run(k, k["x"], x_at, k["y"], y_at, length)
            else:
                with k.loop(0, length) as i:
                    k.store(k["y"], y_at + i * y_stride, k.load(k["x"], x_at + i * x_stride))

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        for (y_at, x_at), length, (y_stride, x_stride) in reference_rows(args, 2, begin, end):
            row_of(args["y"], y_at, length, y_stride)[:] = row_of(args["x"], x_at, length, x_stride)


CONVERTED_PER_ITEM = 8192


@dataclass(frozen=True)
class ConvertElements:
    """Converts elements one by one: models convert what they take and return, which is little."""

    source: DType
    target: DType

    @property
    def name(self) -> str:
        return f"pcc_convert_{self.source.short}_{self.target.short}"

    @property
    def params(self) -> tuple[Param, ...]:
        return Param("y", f"{self.target.short}*", writes=True), Param("x", f"{self.source.short}*"), Param("size")

    def body(self, k: "KernelBuilder") -> None:
        from tvm import tirx

        with k.work() as item:
            first = k.let(item * CONVERTED_PER_ITEM)
            with k.loop(first, math.smaller(first + CONVERTED_PER_ITEM, k["size"])) as i:
                k.store(k["y"], i, tirx.Cast(self.target.tir(), k.load(k["x"], i)))

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        part = slice(begin * CONVERTED_PER_ITEM, min(end * CONVERTED_PER_ITEM, int(args["size"])))  # type: ignore[arg-type]
        np.asarray(args["y"])[part] = np.asarray(args["x"])[part].astype(self.target.numpy)


@dataclass(frozen=True)
class FillRows:
    """Fills rows with a number; ``unit`` if the tensor is contiguous along them."""

    unit: bool

    @property
    def name(self) -> str:
        return "pcc_fill" if self.unit else "pcc_fill_strided"

    @property
    def params(self) -> tuple[Param, ...]:
        return (Param("y", "f32*", writes=True), Param("value", "f32"), *NEST_PARAMS)

    def body(self, k: "KernelBuilder") -> None:
        with rows_of_work(k, tensors=1) as ((at,), length, (stride,)):
            if self.unit:
                fill_run(k, k["value"], k["y"], at, length)
            else:
                with k.loop(0, length) as i:
                    k.store(k["y"], at + i * stride, k["value"])

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        for (at,), length, (stride,) in reference_rows(args, 1, begin, end):
            row_of(args["y"], at, length, stride)[:] = args["value"]
