"""All kinds of structures by name, as recipes write them."""

from collections.abc import Sequence
from typing import Any

from pcc.errors import PccError, suggestion
from pcc.fields import typed_fields
from pcc.sparsity.centroids import Centroids
from pcc.sparsity.columns import Column
from pcc.sparsity.compose import Composition
from pcc.sparsity.conductance import Conductance
from pcc.sparsity.crossbar import Crossbar
from pcc.sparsity.filters import Channel, Filter
from pcc.sparsity.kernels import Kernels
from pcc.sparsity.levels import Binary, PowerOfTwo, Ternary, UniformLevels
from pcc.sparsity.n_of_m import NofM
from pcc.sparsity.structure import Structure
from pcc.sparsity.tetris import Tetris
from pcc.sparsity.unstructured import Unstructured
from pcc.sparsity.window import Window

_SIMPLE: tuple[type[Structure], ...] = (
    Kernels,
    Unstructured,
    Window,
    NofM,
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
_BY_NAME = {structure.name: structure for structure in _SIMPLE}


def names() -> tuple[str, ...]:
    """The kinds a recipe can name. Compositions are lists of these there."""
    return tuple(_BY_NAME)


def kind(name: str) -> type[Structure]:
    """The class of a name, ``composition`` too; `PccError` for a name that does not exist."""
    if name == Composition.name:
        return Composition
    if name not in _BY_NAME:
        raise PccError(f"unknown structure '{name}': {suggestion(name, _BY_NAME)}")
    return _BY_NAME[name]


def structure(name: str, /, **values: Any) -> Structure:
    """A structure by its name and fields, as YAML gives them: lists stand for tuples.

    Raises `PccError` for a name or field that does not exist, a field that is missing, and a value of the wrong type or
    range.
    """
    if name == Composition.name:
        raise PccError("a composition is written as a list of structures")
    cls = kind(name)
    return cls(**typed_fields(cls, values, source=f"structure {name}"))


def compose(parts: Sequence[Structure]) -> Structure:
    """The structure of one part, the composition of several."""
    return parts[0] if len(parts) == 1 else Composition(tuple(parts))
