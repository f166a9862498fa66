"""Where shapes go that have the number of a NonMaxSuppression's rows as an element. They may say the shape of other
values (exporters write ``boxes[image, place]`` so), and nothing else may be computed from them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pcc.frontend.onnx.emitter import Emitter, Value, rank
from pcc.frontend.onnx.marks import Rows, Sizes
from pcc.frontend.onnx.refused import refusal
from pcc.frontend.onnx.rule import Rule, apply
from pcc.frontend.onnx.rules import arithmetic, reductions

_TAKEN = {
    **dict.fromkeys(("Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Slice", "Gather", "ReduceMin"), 1),
    **dict.fromkeys(("Concat", "Min"), 1 << 30),
}
"""What may be done with shapes, and how many of its inputs are shapes. It is done with the places, too."""

_WITH_PLACES = {"Min": arithmetic.RULES["Max"], "ReduceMin": reductions.RULES["ReduceMax"]}
"""Where something else is done with the places: the number of rows, or less, is their number to those that take the
first so many."""


def of_shape(
    rule: Rule, emit: Emitter, inputs: Sequence[Value | None], attributes: Mapping[str, Any], rows: Rows
) -> list[Value | None]:
    """The shape of a value with rows, their number marked in it."""
    results, value = apply(rule, emit, inputs, attributes), inputs[0]
    assert value is not None
    places = (torch.arange(rank(value)) == rows.dim).to(torch.int64)
    _mark(emit, results, places[attributes.get("start", 0) : attributes.get("end")], rows)
    return results


def of_sizes(
    rule: Rule,
    emit: Emitter,
    inputs: Sequence[Value | None],
    attributes: Mapping[str, Any],
    sizes: Mapping[int, Sizes],
) -> list[Value | None]:
    """The values of a node some of whose inputs are such shapes, by the input's place."""
    mark = next(iter(sizes.values()))
    results = apply(rule, emit, inputs, attributes)
    if max(sizes) < (shapes := _TAKEN.get(emit.kind, 0)):
        places = [sizes[at].places if at in sizes else _nowhere(value) for at, value in enumerate(inputs[:shapes])]
        of_places = _WITH_PLACES.get(emit.kind, rule)
        _mark(emit, results, apply(of_places, emit, [*places, *inputs[shapes:]], attributes)[0], mark.rows)
    elif emit.kind in ("ConstantOfShape", "Expand") and int(mark.places.sum()) == 1:
        (value,) = results
        assert value is not None
        dim = rank(value) - mark.places.numel() + int(mark.places.argmax())
        emit.marks[value] = replace(mark.rows, dim=dim)
    else:
        raise refusal(mark)
    return results


def _nowhere(value: Value | None) -> Value | None:
    return torch.zeros_like(value, dtype=torch.int64) if isinstance(value, Tensor) else value


def _mark(emit: Emitter, results: Sequence[Value | None], places: Value | None, rows: Rows) -> None:
    if isinstance(places, Tensor) and bool(places.any()):
        emit.marks[results[0]] = Sizes(places, rows)
