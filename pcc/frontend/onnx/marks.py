"""What is known of values whose rows are not all there: a NonMaxSuppression gives as many rows as there could be, and
those behind its count are none."""

from dataclasses import dataclass

from torch import Tensor
from torch.fx import Node


@dataclass(frozen=True)
class Rows:
    """Which dimension of a value are the rows of a NonMaxSuppression."""

    dim: int
    count: Tensor | Node
    """How many of them count, (1,)."""
    output: str
    """Under which name the model returns that."""


@dataclass(frozen=True)
class Sizes:
    """Which elements of a known shape are how many rows there could be, 1 or 0."""

    places: Tensor
    rows: Rows
