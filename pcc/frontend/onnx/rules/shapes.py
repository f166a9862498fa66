"""Shapes and constants: what is known as soon as the shapes are."""

from collections.abc import Sequence
from math import prod
from typing import Any

import onnx_ir as ir
import torch

from pcc.frontend.onnx.data_types import torch_tensor, torch_type
from pcc.frontend.onnx.emitter import Emitter, Refused, Value, check_size, dtype, integers, number, rank, shape
from pcc.frontend.onnx.rule import Rule


def shape_(emit: Emitter, x: Value, *, start: int = 0, end: int | None = None) -> Value:
    return torch.tensor(shape(x)[start:end], dtype=torch.int64)


def size(emit: Emitter, x: Value) -> Value:
    return torch.tensor(int(torch.Size(shape(x)).numel()), dtype=torch.int64)


def constant(
    emit: Emitter,
    *,
    value: ir.TensorProtocol | None = None,
    value_float: float | None = None,
    value_floats: Sequence[float] | None = None,
    value_int: int | None = None,
    value_ints: Sequence[int] | None = None,
) -> Value:
    if value is not None:
        return emit.read(torch_tensor(value))
    if value_float is not None or value_floats is not None:
        return torch.tensor(value_float if value_float is not None else list(value_floats or ()), dtype=torch.float32)
    if value_int is not None or value_ints is not None:
        return torch.tensor(value_int if value_int is not None else list(value_ints or ()), dtype=torch.int64)
    raise Refused("a constant that is neither a tensor nor a number")


def constant_of_shape(emit: Emitter, sizes: Value, *, value: ir.TensorProtocol | None = None) -> Value:
    wanted = integers(sizes, "its shape is")
    assert wanted is not None
    check_size(wanted)
    fill = torch.zeros(1) if value is None else torch_tensor(value)
    emit.check_room(prod(wanted) * fill.itemsize)
    return fill.reshape(()).expand(wanted).clone()


def range_(emit: Emitter, start: Value, limit: Value, delta: Value) -> Value:
    first, last, step = (number(value, "its bounds are") for value in (start, limit, delta))
    if step == 0:
        raise Refused("steps of 0")
    count = max(0, -int((first - last) // step))
    check_size([count])
    emit.check_room(count * 8)
    return (
        torch.arange(count, dtype=torch.float64 if dtype(start).is_floating_point else torch.int64) * step + first
    ).to(dtype(start))


def eye_like(emit: Emitter, x: Value, *, dtype: int | None = None, k: int = 0) -> Value:
    if rank(x) != 2:
        raise Refused(f"a value of {shape(x)}, which is no matrix")
    rows, columns = shape(x)
    emit.check_room(rows * columns)
    kind: Any = torch_type(dtype) if dtype is not None else _type(x)
    return (torch.arange(columns)[None] == torch.arange(rows)[:, None] + k).to(kind)


def _type(x: Value) -> torch.dtype:
    return dtype(x)


RULES: dict[str, Rule] = {
    "Shape": shape_,
    "Size": size,
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "Range": range_,
    "EyeLike": eye_like,
}
