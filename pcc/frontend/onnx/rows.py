"""Where the rows of a NonMaxSuppression go. What is made of them row by row is right for those that count; what mixes
or counts them would be wrong, and is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from pcc.frontend.onnx.emitter import Emitter, Value, dtype, integers, rank, shape
from pcc.frontend.onnx.marks import Rows, Sizes
from pcc.frontend.onnx.refused import refusal
from pcc.frontend.onnx.rule import Rule, apply
from pcc.frontend.onnx.rules import arithmetic, reductions
from pcc.frontend.onnx.rules.arithmetic import convert
from pcc.frontend.onnx.sizes import of_shape, of_sizes

_aten: Any = torch.ops.aten

_Shapes = Sequence[tuple[int, ...]]
_Results = list[Value | None]


def apply_to_rows(rule: Rule, emit: Emitter, inputs: Sequence[Value | None], attributes: Mapping[str, Any]) -> _Results:
    """The node's values, marked as its inputs are. `Refused` where it would mix or count rows of which some are
    none."""
    marks = {place: mark for place, value in enumerate(inputs) if (mark := emit.marks.get(value))}
    rows = {place: mark for place, mark in marks.items() if isinstance(mark, Rows)}
    sizes = {place: mark for place, mark in marks.items() if isinstance(mark, Sizes)}
    if rows:
        call = _Call(emit.kind, emit.opset, inputs, attributes, rows)
        if emit.kind == "Shape":
            return of_shape(rule, emit, inputs, attributes, call.first)
        return _of_rows(rule, emit, call, bool(sizes))
    return of_sizes(rule, emit, inputs, attributes, sizes) if sizes else apply(rule, emit, inputs, attributes)


@dataclass(frozen=True)
class _Call:
    """A node some of whose inputs have rows."""

    kind: str
    opset: int
    inputs: Sequence[Value | None]
    attributes: Mapping[str, Any]
    rows: Mapping[int, Rows]
    """By the input's place."""

    @property
    def dim(self) -> int:
        return self.first.dim

    @property
    def first(self) -> Rows:
        return next(iter(self.rows.values()))

    def given(self, place: int) -> Value:
        value = self.inputs[place]
        assert value is not None
        return value

    def axis(self, default: int, dimensions: int) -> int:
        return self.attributes.get("axis", default) % dimensions

    def integers(self, place: int, attribute: str) -> list[int] | None:
        """What is an input in newer opsets and an attribute in older ones."""
        given = self.inputs[place] if place < len(self.inputs) else None
        return integers(self.attributes.get(attribute) if given is None else given, f"its {attribute} are")


_Goes = Callable[[_Call, _Shapes], int | None]


def _of_rows(rule: Rule, emit: Emitter, call: _Call, with_sizes: bool) -> _Results:
    one = len({mark.output for mark in call.rows.values()}) == 1
    if (
        not one
        or call.kind not in _GOES
        or (max(call.rows) > 0 and call.kind not in _SEVERAL)
        or (with_sizes and call.kind not in ("Reshape", "Expand", "TopK"))
    ):
        raise refusal(call.first)
    results = apply(rule, emit, _prepared(emit, call), call.attributes)
    dim = _GOES[call.kind](call, [shape(value) for value in results if value is not None])
    if dim is not None:
        for value in results:
            emit.marks[value] = replace(call.first, dim=dim)
    return results


# ---- where the rows go: the dimension in the result; None where no rows are left ----


def _pointwise(call: _Call, results: _Shapes) -> int:
    """Shapes broadcast from the right."""
    behind = {rank(call.given(place)) - rows.dim for place, rows in call.rows.items()}
    counts = {shape(call.given(place))[rows.dim] for place, rows in call.rows.items()}
    dim = len(results[0]) - min(behind)
    if len(behind) > 1 or counts != {results[0][dim]}:
        raise refusal(call.first)
    return dim


def _regrouped(call: _Call, results: _Shapes) -> int:
    """As many elements lie in front of a row as before."""
    have = shape(call.given(0))
    places = [
        place
        for place, size in enumerate(results[0])
        if size == have[call.dim] and prod(results[0][:place]) == prod(have[: call.dim])
    ]
    if not places:
        raise refusal(call.first)
    return call.dim if call.dim in places else places[0]  # of one row, dimensions of 1 are all alike


def _squeezed(call: _Call, results: _Shapes) -> int:
    have, axes = shape(call.given(0)), call.integers(1, "axes")
    gone = (
        {axis % len(have) for axis in axes} if axes is not None else {at for at, size in enumerate(have) if size == 1}
    )
    if call.dim in gone:
        raise refusal(call.first)
    return call.dim - sum(axis < call.dim for axis in gone)


def _unsqueezed(call: _Call, results: _Shapes) -> int:
    added = {axis % len(results[0]) for axis in call.integers(1, "axes") or ()}
    return [place for place in range(len(results[0])) if place not in added][call.dim]


def _transposed(call: _Call, results: _Shapes) -> int:
    return list(call.attributes.get("perm", range(len(results[0]))[::-1])).index(call.dim)


def _sliced(call: _Call, results: _Shapes) -> int:
    """The first so many rows are rows, too; where others begin or end depends on the count."""
    starts, ends = call.integers(1, "starts") or [], call.integers(2, "ends") or []
    dims = call.integers(3, "axes") or range(len(starts))
    steps = call.integers(4, "steps") or [1] * len(starts)
    for dim, start, end, step in zip(dims, starts, ends, steps, strict=True):
        if dim % len(results[0]) == call.dim and (start != 0 or end < 0 or step != 1):
            raise refusal(call.first)
    return call.dim


def _along(default: int) -> _Goes:
    """What an operator does along one axis, which is another than the rows'."""

    def goes(call: _Call, results: _Shapes) -> int:
        if call.axis(default, len(results[0])) == call.dim:
            raise refusal(call.first)
        return _pointwise(call, results)

    return goes


def _softmax(call: _Call, results: _Shapes) -> int | None:
    if call.opset < 13:  # over all dimensions from the axis on
        raise refusal(call.first)
    return _along(-1)(call, results)


def _gathered(call: _Call, results: _Shapes) -> int | None:
    """Columns of rows; what rows say, where -1 is the last element; a row by its number."""
    x, index, taken = call.given(0), call.given(1), call.rows.get(0)
    axis = call.axis(0, rank(x))
    if taken and taken.dim != axis:
        if 1 in call.rows:
            raise refusal(call.first)
        return taken.dim + (rank(index) - 1 if taken.dim > axis else 0)
    if isinstance(index, Tensor) and bool((index < 0).any()):  # from the end
        raise refusal(call.first)
    return axis + call.rows[1].dim if 1 in call.rows else None


def _gathered_by_rows(call: _Call, results: _Shapes) -> int:
    """Elements by their coordinates, which are the last dimension of the index."""
    if set(call.rows) != {1} or call.dim == rank(call.given(1)) - 1:
        raise refusal(call.first)
    return call.dim


def _multiplied(call: _Call, results: _Shapes) -> int:
    """Rows times a matrix."""
    behind = rank(call.given(0)) - call.dim
    if behind < 2 or call.attributes.get("transA", 0):
        raise refusal(call.first)
    return len(results[0]) - behind


def _of_each_image(call: _Call, results: _Shapes) -> int:
    """Rows are images, each of which is computed by itself."""
    if call.dim != 0:
        raise refusal(call.first)
    return 0


def _regions(call: _Call, results: _Shapes) -> int:
    """A row is a region, or says of which image it is."""
    if 0 in call.rows or any(rows.dim != 0 for rows in call.rows.values()):
        raise refusal(call.first)
    return 0


def _reduced(call: _Call, results: _Shapes) -> int | None:
    over, have = _axes(call), rank(call.given(0))
    if call.dim not in over:
        return call.dim - (sum(axis < call.dim for axis in over) if len(results[0]) < have else 0)
    if call.kind not in _FILLS:
        raise refusal(call.first)
    return None


def _sorted(call: _Call, results: _Shapes) -> int:
    """Rows that are none come last again."""
    if call.dim in _axes(call) and not call.attributes.get("sorted", 1):
        raise refusal(call.first)
    return call.dim


def _axes(call: _Call) -> set[int]:
    """What an operator goes over."""
    have = rank(call.given(0))
    if not call.kind.startswith("Reduce"):
        return {call.axis(-1 if call.kind == "TopK" else 0, have)}
    if axes := call.integers(1, "axes"):
        return {axis % have for axis in axes}
    return set() if call.attributes.get("noop_with_empty_axes", 0) else set(range(have))


_POINTWISE = {*arithmetic.RULES, "Identity", "Expand", "Tile"} - {"DequantizeLinear"}

_OF_IMAGES = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "Resize")

_GOES: dict[str, _Goes] = {
    **dict.fromkeys(_POINTWISE, _pointwise),
    **{name: _reduced for name in reductions.RULES if name.startswith(("Reduce", "Arg"))},
    **dict.fromkeys(("Reshape", "Flatten"), _regrouped),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
    **dict.fromkeys(("Split", "GatherElements"), _along(0)),
    **dict.fromkeys(("MatMul", "Gemm"), _multiplied),
    **dict.fromkeys(_OF_IMAGES, _of_each_image),
    "RoiAlign": _regions,
    "Concat": _along(1),
    "Squeeze": _squeezed,
    "Unsqueeze": _unsqueezed,
    "Transpose": _transposed,
    "Slice": _sliced,
    "Gather": _gathered,
    "GatherND": _gathered_by_rows,
    "TopK": _sorted,
}
"""What may be done with rows; any other operator is refused."""

_SEVERAL = {*_POINTWISE, "Concat", "Gather", "GatherElements", "GatherND", "RoiAlign"}
"""What may have rows in other inputs than the first."""

_FILLS = {"ReduceMax": "min", "ArgMax": "min", "TopK": "min", "ReduceMin": "max", "ArgMin": "max"}
"""What goes over rows as if some were not there where they hold the least number there is, or the largest."""


def _prepared(emit: Emitter, call: _Call) -> list[Value | None]:
    """The inputs, where rows that are none hold what does no harm: the number that is never chosen; of indices -1, the
    last element, whatever was computed with them; of images the first."""
    inputs = list(call.inputs)
    if call.kind in _FILLS and call.dim in _axes(call):
        inputs[0] = _filled(emit, call.given(0), call.first, _never_chosen(call))
    if call.kind.startswith("Gather") and 1 in call.rows and not isinstance(inputs[1], Tensor):
        inputs[1] = _filled(emit, call.given(1), call.rows[1], -1)
    if call.kind == "RoiAlign" and 2 in call.rows and not isinstance(inputs[2], Tensor):
        inputs[2] = _filled(emit, call.given(2), call.rows[2], 0)
    return inputs


def _never_chosen(call: _Call) -> float:
    if call.attributes.get("select_last_index", 0):
        raise refusal(call.first)
    limit = _FILLS[call.kind] if call.attributes.get("largest", 1) else "max"
    kind = dtype(call.given(0))
    if kind.is_floating_point:
        return float("-inf" if limit == "min" else "inf")
    return getattr(torch.iinfo(kind), limit)


def _filled(emit: Emitter, x: Value, rows: Rows, fill: float) -> Value:
    """A value with a number in the rows that are none."""
    numbers = torch.arange(shape(x)[rows.dim], dtype=torch.float32)
    numbers = numbers.reshape([-1 if dim == rows.dim else 1 for dim in range(rank(x))])
    counts = emit.call(_aten.lt.Tensor, numbers, convert(emit, rows.count, torch.float32))
    return emit.call(_aten.where.self, counts, x, torch.tensor(fill, dtype=dtype(x)))
