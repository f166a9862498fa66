"""What every structure can do: project a weight on it, detect it, pack it, unpack it, count it.

A structure is a set of weights with a budget in it: "at most one weight in ten", "filters of 4-entry patterns", "values
of 3 bits". It is a frozen dataclass whose fields are the budget, so a recipe can name it and a test can build it.
Weights are fp32 (O, I/groups, kh, kw) for convolutions and (O, I) for linear layers; a structure that needs four
dimensions sees a linear layer as a 1x1 convolution.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Self

import numpy as np


@dataclass(frozen=True)
class Packed:
    """The arrays that one weight comes down to, as a packed checkpoint holds them (`pcc.frontend.packed`), and how many
    bytes of them count as what."""

    shape: tuple[int, ...]
    """Of the weight."""
    data: dict[str, np.ndarray] = field(compare=False)
    """What holds values: weights, code books, scales; codes of a few bits are packed into bytes."""
    index: dict[str, np.ndarray] = field(compare=False)
    """What says where they belong."""

    @property
    def data_bytes(self) -> int:
        return sum(array.nbytes for array in self.data.values())

    @property
    def index_bytes(self) -> int:
        return sum(array.nbytes for array in self.index.values())


@dataclass(frozen=True)
class Count:
    """What a weight costs in a structure; counts of layers add."""

    weights: int
    kept: int
    """Weights that are not zero."""
    data_bytes: int
    index_bytes: int

    def __add__(self, other: "Count") -> "Count":
        return Count(
            self.weights + other.weights,
            self.kept + other.kept,
            self.data_bytes + other.data_bytes,
            self.index_bytes + other.index_bytes,
        )

    @property
    def rate(self) -> float:
        """Weights of the dense layer for each that is kept."""
        return self.weights / max(1, self.kept)


class Structure(ABC):
    """One kind of structure with its budget. Subclasses are frozen dataclasses."""

    name: ClassVar[str]
    """Its key in recipes: ``unstructured``, ``filter``..."""

    values_only: ClassVar[bool] = False
    """Whether it restricts the values of weights (levels, centroids, signs) and not which of them are zero."""

    @property
    def zeros_only(self) -> bool:
        """Whether it restricts which weights are zero and not their values."""
        return False

    def __str__(self) -> str:
        """In one line, near to what a recipe has: ``kernels{patterns=designed, rate=3.6}``. Orders of filters are left
        out."""
        known = {field.name: (getattr(self, field.name), field.default) for field in fields(self) if field.repr}  # type: ignore[arg-type]  # a dataclass
        changed = ", ".join(
            f"{name}={_short(value)}"
            for name, (value, default) in known.items()
            if default is MISSING or value != default
        )
        return f"{self.name}{{{changed}}}" if changed else self.name

    def settle(self, weights: Sequence[np.ndarray]) -> Self:
        """The structure with what it takes from all layers that share it (patterns mined from their connections);
        itself where there is nothing."""
        return self

    def arranged(self, weight: np.ndarray, groups: int = 1) -> Self:
        """The structure with what it takes from one layer alone, so that training does not change it (the orders of
        TETRIS); itself where there is nothing."""
        return self

    @abstractmethod
    def project(self, weight: np.ndarray, groups: int = 1) -> np.ndarray:
        """The nearest weight in the set by Euclidean distance, as fp32: exact budget, ties by lower index, idempotent.

        A structure for which the nearest is not computed says so in its docstring. Raises `PccError` where the weight
        cannot have the structure.
        """

    @classmethod
    @abstractmethod
    def detect(cls, weight: np.ndarray, groups: int = 1) -> Self | str:
        """The smallest structure of this kind that contains the weight, or why there is nothing to gain from this
        kind."""

    @abstractmethod
    def pack(self, weight: np.ndarray, groups: int = 1) -> Packed:
        """The arrays of a weight that has the structure; `PccError` if it has not."""

    @staticmethod
    @abstractmethod
    def unpack(packed: Packed) -> np.ndarray:
        """The weight that was packed, bit for bit (zeros come back as +0)."""

    def count(self, weight: np.ndarray, groups: int = 1) -> Count:
        """What a weight that has the structure costs."""
        packed = self.pack(weight, groups)
        return Count(weight.size, int(np.count_nonzero(weight)), packed.data_bytes, packed.index_bytes)


def _short(value: Any) -> str:
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return f"{len(value)}x{len(value[0])}"
    return (
        f"{value:.4g}"
        if isinstance(value, float)
        else "x".join(map(str, value))
        if isinstance(value, tuple)
        else str(value)
    )
