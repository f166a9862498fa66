"""How the weights of a layer lie in a constant, so that one constant serves programs that want them in different
orders: that of the processor is in the library, and a GPU's is made of it when the library is loaded."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Packing:
    """A weight, filters first, and what puts it into the order that a kernel reads: numbers in other places, zeros
    between them."""

    weight: np.ndarray
    pack: Callable[[np.ndarray], np.ndarray]

    @cached_property
    def digest(self) -> bytes:
        """Of the weight's numbers, as (O, I, taps)."""
        return weight_digest(self.weight)

    @cached_property
    def rows(self) -> np.ndarray | None:
        """Where the numbers lie in the constant, int32 (O, 3): of each filter its first number, how far channels are
        apart, and how far taps are. None where that does not describe the order, or not in 32 bits."""
        shape = as_taps(self.weight).shape
        numbers = np.arange(1, self.weight.size + 1).reshape(self.weight.shape)
        packed = np.ascontiguousarray(self.pack(numbers)).ravel()
        places = np.zeros(self.weight.size + 1, np.int64)
        places[packed] = np.arange(packed.size)
        places = places[1:].reshape(shape)
        first = places[:, 0, 0]
        channel = places[:, 1, 0] - first if shape[1] > 1 else np.zeros_like(first)
        tap = places[:, 0, 1] - first if shape[2] > 1 else np.zeros_like(first)
        rows = np.stack([first, channel, tap], 1).astype(np.int32)
        return rows if (places_of(rows, shape) == places).all() else None


def as_taps(weight: np.ndarray) -> np.ndarray:
    """A weight (O, I, ...) as (O, I, taps)."""
    return weight.reshape(*weight.shape[:2], -1)


def weight_digest(weight: np.ndarray) -> bytes:
    """SHA-256 of a weight (O, I, ...): its shape as (O, I, taps), its type, its numbers."""
    head = f"{as_taps(weight).shape} {weight.dtype}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(weight).tobytes()).digest()


def plain_rows(shape: tuple[int, ...]) -> np.ndarray:
    """`Packing.rows` of a contiguous weight (O, I, taps)."""
    filters, channels, taps = shape
    rows = np.empty((filters, 3), np.int32)
    rows[:, 0], rows[:, 1], rows[:, 2] = np.arange(filters) * (channels * taps), taps, 1
    return rows


def places_of(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The place of each number of a weight (O, I, taps) by its rows."""
    first, channel, tap = (column[:, None, None] for column in rows.astype(np.int64).T)
    return first + np.arange(shape[1])[:, None] * channel + np.arange(shape[2]) * tap
