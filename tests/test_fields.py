"""Typed fields: the types that texts can have, and one line for what does not fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pytest

from pcc.errors import PccError
from pcc.fields import in_words, typed_fields


@dataclass(frozen=True)
class Step:
    """A field of each type."""

    count: int
    rate: float = 1.0
    label: str | None = None
    kind: Literal["a", "b"] = "a"
    size: tuple[int, int] = (1, 1)
    layers: Mapping[str, float] = field(default_factory=dict)


def test_values_get_the_declared_types() -> None:
    values = {"count": 3, "rate": 2, "label": None, "kind": "b", "size": [3, 5], "layers": {"fc": 4}}
    assert Step(**typed_fields(Step, values, source="step")) == Step(3, 2.0, None, "b", (3, 5), {"fc": 4.0})
    texts = {"count": "3", "rate": "2", "label": "3", "size": ["3", "5"], "layers": {"0": "4"}}
    assert Step(**typed_fields(Step, texts, source="step", strict=False)) == Step(3, 2.0, "3", "a", (3, 5), {"0": 4.0})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "step needs the option 'count': give a whole number"),
        ({"cuont": 1}, "step has no option 'cuont': did you mean count?"),
        ({"count": True}, "step: count cannot be True: give a whole number"),
        ({"count": "3"}, "step: count cannot be '3'"),
        ({"count": 2.5}, "step: count cannot be 2.5"),
        ({"count": 1, "rate": float("inf")}, "step: rate cannot be inf: give a number"),
        ({"count": 1, "rate": float("nan")}, "step: rate cannot be nan"),
        ({"count": 1, "label": 3}, "step: label cannot be 3: give a name or none"),
        ({"count": 1, "size": [1]}, "step: size cannot be [1]: give a list: a whole number, a whole number"),
        ({"count": 1, "kind": "c"}, "step: kind cannot be 'c': give one of a, b"),
        ({"count": 1, "layers": {"fc": "x" * 500}}, "give a mapping from names to a number"),
    ],
)
def test_what_does_not_fit_is_one_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(PccError) as caught:
        typed_fields(Step, values, source="step")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_types_in_words() -> None:
    assert in_words(Sequence[float]) == "a list, each a number"
    assert (
        in_words(str | int | tuple[tuple[int, ...], ...] | None)
        == "a name or a whole number or a list, each a list, each a whole number or none"
    )
