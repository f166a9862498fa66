"""Reading and writing elements by their numbers."""

from typing import Any

import torch
from torch import Tensor

from pcc.frontend.onnx.emitter import Emitter, Refused, Value, integers, known, number, rank, shape
from pcc.frontend.onnx.rule import Rule
from pcc.frontend.onnx.rules.arithmetic import convert
from pcc.frontend.onnx.rules.moves import axis_of, pick, reshaped

_aten: Any = torch.ops.aten


def _wrapped(emit: Emitter, index: Value, size: int) -> Value:
    """Indices from 0 on: negative ones count from the end. Known ones are checked."""
    index = convert(emit, index, torch.int64)
    if isinstance(index, Tensor):
        if index.numel() and not -size <= int(index.min()) <= int(index.max()) < size:
            raise Refused(f"an index out of range for size {size}")
        return torch.where(index < 0, index + size, index)
    return emit.call(
        _aten.where.self, emit.call(_aten.lt.Scalar, index, 0), emit.call(_aten.add.Tensor, index, size), index
    )


def gather(emit: Emitter, x: Value, index: Value, *, axis: int = 0) -> Value:
    """Rows of one dimension: by one number a select, by known numbers a slice or a list, by the model's input an
    embedding."""
    axis = axis_of(axis, rank(x))
    index = _wrapped(emit, index, shape(x)[axis])
    if isinstance(index, Tensor) and rank(index) == 0:
        return emit.call(_aten.select.int, x, axis, int(index))
    if isinstance(index, Tensor):
        rows = pick(emit, x, axis, index.flatten().tolist())
    elif axis == 0 and rank(x) == 2:
        return emit.call(_aten.embedding.default, x, index)
    else:
        rows = emit.call(
            _aten.index_select.default, x, axis, reshaped(emit, index, [-1 if rank(index) != 1 else shape(index)[0]])
        )
    return reshaped(emit, rows, [*shape(x)[:axis], *shape(index), *shape(x)[axis + 1 :]])


def gather_elements(emit: Emitter, x: Value, index: Value, *, axis: int = 0) -> Value:
    axis = axis_of(axis, rank(x))
    return emit.call(_aten.gather.default, x, axis, _wrapped(emit, index, shape(x)[axis]))


def gather_nd(emit: Emitter, x: Value, index: Value, *, batch_dims: int = 0) -> Value:
    """``x[i, j, ...]`` for each row ``(i, j, ...)`` of the index, inside each batch."""
    depth = shape(index)[-1]
    batch = shape(x)[:batch_dims]
    numbers: list[Any] = []
    for dim, size in enumerate(batch):
        counting = torch.arange(size).reshape([size if place == dim else 1 for place in range(rank(index) - 1)])
        numbers.append(counting)
    for place in range(depth):
        column = emit.call(_aten.select.int, convert(emit, index, torch.int64), rank(index) - 1, place)
        numbers.append(_wrapped(emit, column, shape(x)[batch_dims + place]))
    return emit.call(_aten.index.Tensor, x, numbers)


_SCATTERS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def scatter_elements(
    emit: Emitter, x: Value, index: Value, updates: Value, *, axis: int = 0, reduction: str = "none"
) -> Value:
    axis = axis_of(axis, rank(x))
    places = _wrapped(emit, index, shape(x)[axis])
    if reduction == "none":
        return emit.call(_aten.scatter.src, x, axis, places, updates)
    if reduction not in _SCATTERS:
        raise Refused(f"reduction={reduction}")
    return emit.call(_aten.scatter_reduce.two, x, axis, places, updates, _SCATTERS[reduction])


def scatter_nd(emit: Emitter, x: Value, index: Value, updates: Value, *, reduction: str = "none") -> Value:
    """``x`` with ``x[i, j, ...] = update`` for each row of the index."""
    depth = shape(index)[-1]
    places = convert(emit, index, torch.int64)
    if reduction in ("none", "add"):
        numbers = [
            _wrapped(emit, emit.call(_aten.select.int, places, rank(index) - 1, place), shape(x)[place])
            for place in range(depth)
        ]
        return emit.call(_aten.index_put.default, x, numbers, updates, reduction == "add")
    if reduction not in _SCATTERS:
        raise Refused(f"reduction={reduction}")
    # As a scatter along the flattened dimensions that the index goes through.
    flat: Value | None = None
    for place in range(depth):
        column = _wrapped(emit, emit.call(_aten.select.int, places, rank(index) - 1, place), shape(x)[place])
        flat = (
            column
            if flat is None
            else emit.call(_aten.add.Tensor, emit.call(_aten.mul.Tensor, flat, shape(x)[place]), column)
        )
    if flat is None:
        raise Refused("an index without coordinates")
    rest = list(shape(x)[depth:])
    count = int(torch.Size(shape(index)[:-1]).numel())
    rows, inner = int(torch.Size(shape(x)[:depth]).numel()), int(torch.Size(rest).numel())
    spread = emit.call(_aten.expand.default, reshaped(emit, flat, [count, 1]), [count, inner])
    result = emit.call(
        _aten.scatter_reduce.two,
        reshaped(emit, x, [rows, inner]),
        0,
        spread,
        reshaped(emit, updates, [count, inner]),
        _SCATTERS[reduction],
    )
    return reshaped(emit, result, shape(x))


def one_hot(emit: Emitter, index: Value, depth: Value, values: Value, *, axis: int = -1) -> Value:
    count = int(number(depth, "its depth is"))
    axis = axis_of(axis, rank(index) + 1)
    off_on = known(values, "its values are")
    assert off_on is not None
    places = torch.arange(count).reshape([-1 if dim == axis else 1 for dim in range(rank(index) + 1)])
    whole = convert(emit, index, torch.int64)
    whole = emit.call(
        _aten.where.self, emit.call(_aten.lt.Scalar, whole, 0), emit.call(_aten.add.Tensor, whole, count), whole
    )
    hot = emit.call(_aten.eq.Tensor, emit.call(_aten.unsqueeze.default, whole, axis), places)
    return emit.call(_aten.where.self, hot, off_on[1].clone(), off_on[0].clone())


def compress(emit: Emitter, x: Value, condition: Value, *, axis: int | None = None) -> Value:
    keep = known(condition, "its condition is")
    assert keep is not None
    if axis is None:
        x, axis = reshaped(emit, x, [int(torch.Size(shape(x)).numel())]), 0
    return pick(emit, x, axis_of(axis, rank(x)), keep.flatten().nonzero().flatten().tolist())


def nonzero(emit: Emitter, x: Value) -> Value:
    value = known(x, "which elements are not zero is")
    assert value is not None
    return value.nonzero().T.contiguous() if rank(value) else value.reshape(1).nonzero().T.contiguous()


def grid_sample(
    emit: Emitter, x: Value, grid: Value, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> Value:
    """Modes under the names of opset 16 and of 20."""
    modes = {"bilinear": 0, "linear": 0, "nearest": 1, "bicubic": 2, "cubic": 2}
    edges = {"zeros": 0, "border": 1, "reflection": 2}
    if mode not in modes or padding_mode not in edges or rank(x) not in (4, 5) or (rank(x) == 5 and modes[mode] == 2):
        raise Refused(f"mode={mode}, padding_mode={padding_mode} on {shape(x)}")
    return emit.call(_aten.grid_sampler.default, x, grid, modes[mode], edges[padding_mode], bool(align_corners))


def affine_grid(emit: Emitter, theta: Value, size: Value, *, align_corners: int = 0) -> Value:
    return emit.call(_aten.affine_grid_generator.default, theta, integers(size, "its size is"), bool(align_corners))


RULES: dict[str, Rule] = {
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "Scatter": scatter_elements,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "OneHot": one_hot,
    "Compress": compress,
    "NonZero": nonzero,
    "GridSample": grid_sample,
    "AffineGrid": affine_grid,
}
