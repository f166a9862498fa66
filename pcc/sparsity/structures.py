"""All kinds of structures by name, as recipes write them, and which of them a weight has."""

from collections.abc import Sequence
from dataclasses import MISSING, fields
from difflib import get_close_matches
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from pcc.errors import PccError
from pcc.sparsity.centroids import Centroids
from pcc.sparsity.columns import Column
from pcc.sparsity.compose import Composition
from pcc.sparsity.conductance import Conductance
from pcc.sparsity.crossbar import Crossbar
from pcc.sparsity.filters import Channel, Filter
from pcc.sparsity.kernels import Kernels
from pcc.sparsity.levels import Binary, PowerOfTwo, Ternary, UniformLevels
from pcc.sparsity.structure import Structure
from pcc.sparsity.tetris import Tetris
from pcc.sparsity.unstructured import Unstructured
from pcc.sparsity.window import Window

_SIMPLE: tuple[type[Structure], ...] = (
    Kernels,
    Unstructured,
    Window,
    Filter,
    Channel,
    Column,
    Tetris,
    Crossbar,
    UniformLevels,
    PowerOfTwo,
    Ternary,
    Binary,
    Conductance,
    Centroids,
)
_BY_NAME = {one.name: one for one in _SIMPLE}


def names() -> tuple[str, ...]:
    """The kinds a recipe can name. Compositions are lists of these there."""
    return tuple(_BY_NAME)


def kind(name: str) -> type[Structure]:
    """The class of a name, ``composition`` too; `PccError` for a name that does not exist."""
    if name == Composition.name:
        return Composition
    if name not in _BY_NAME:
        near = get_close_matches(name, _BY_NAME, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(_BY_NAME)}"
        raise PccError(f"unknown structure '{name}': {hint}")
    return _BY_NAME[name]


def structure(name: str, /, **values: Any) -> Structure:
    """A structure by its name and fields, as YAML gives them: lists stand for tuples.

    Raises `PccError` for a name or field that does not exist, a field that is missing, and a value of the wrong type or range.
    """
    if name == Composition.name:
        raise PccError("a composition is written as a list of structures")
    cls = kind(name)
    known = {one.name: one for one in fields(cls)}  # pyright: ignore[reportArgumentType]  # every structure is a dataclass
    hints = get_type_hints(cls)
    frozen = {field: _frozen(value) for field, value in values.items()}
    for field, value in frozen.items():
        if field not in known:
            raise PccError(f"{name}: unknown field '{field}': it has {', '.join(known) or 'none'}")
        if not _is(value, hints[field]):
            raise PccError(f"{name}: {field} cannot be {values[field]!r}: give {_described(hints[field])}")
    missing = [field for field, one in known.items() if field not in frozen and one.default is MISSING]
    if missing:
        raise PccError(f"{name}: give {' and '.join(missing)}")
    return cls(**frozen)


def compose(parts: Sequence[Structure]) -> Structure:
    """The structure of one part, the composition of several."""
    return parts[0] if len(parts) == 1 else Composition(tuple(parts))


def detect(weight: np.ndarray, groups: int = 1) -> list[Structure]:
    """Every simple structure that there is something to gain from in a weight; the smallest of each kind that contains it."""
    found = (one.detect(weight, groups) for one in _SIMPLE)
    return [one for one in found if not isinstance(one, str)]


def _frozen(value: Any) -> Any:
    return tuple(_frozen(one) for one in value) if isinstance(value, list | tuple) else value


def _is(value: Any, hint: Any) -> bool:
    """Whether a value has a type: numbers, texts, None, tuples of these, and unions."""
    if isinstance(hint, UnionType):
        return any(_is(value, one) for one in get_args(hint))
    if get_origin(hint) is tuple:
        of = get_args(hint)
        each = of[:1] * len(value) if isinstance(value, tuple) and of[1:] == (...,) else of
        return isinstance(value, tuple) and len(value) == len(each) and all(map(_is, value, each))
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    return isinstance(value, int | float if hint is float else hint)


def _described(hint: Any) -> str:
    """A type in words."""
    if isinstance(hint, UnionType):
        return " or ".join(_described(one) for one in get_args(hint))
    if get_origin(hint) is tuple:
        of = get_args(hint)
        return f"a list of {_described(of[0])}" if of[1:] == (...,) else f"a list of {len(of)} numbers"
    return {int: "a whole number", float: "a number", str: "a name", bool: "true or false"}.get(hint, "nothing")
