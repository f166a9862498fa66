"""Tensors that lie in a file: where their numbers are, checked against the bytes that there are when they are read."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

MOST_REPEATED = 2**24
"""Numbers of a tensor whose strides read some of what is stored several times, where there are more of them than are
stored: 64 MiB as fp32."""


@dataclass(frozen=True, eq=False)
class Storage:
    """Numbers that tensors are views of."""

    dtype: torch.dtype
    """``uint8`` where tensors say the type."""
    read: Callable[[], bytearray]

    @cached_property
    def content(self) -> bytearray:
        """Its bytes, read once."""
        return self.read()


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor whose numbers have not been read."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    """Numbers before its first."""
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    negative: bool = False
    """PyTorch's negative bit: the numbers are those of the storage times -1. (The conjugate bit is one of complex
    numbers, which no weight is.)"""

    def tensor(self) -> Tensor:
        """Its numbers, read now. `ValueError` where they are not all there."""
        values = strided(self.storage.content, self.dtype, self.shape, self.stride, self.offset)
        return values.neg() if self.negative else values


def strided(
    content: bytearray, dtype: torch.dtype, shape: tuple[int, ...], stride: tuple[int, ...], offset: int
) -> Tensor:
    """A tensor over stored numbers; ``stride`` and ``offset`` count numbers. `ValueError` for one that reaches beyond
    them or is far larger than they are."""
    if not all(type(value) is int and value >= 0 for value in (*shape, *stride, offset)) or len(shape) != len(stride):
        raise ValueError("a tensor has negative sizes, or sizes that are no numbers")
    if not prod(shape):
        return torch.zeros(shape, dtype=dtype)
    stored = len(content) // dtype.itemsize
    if offset + sum((length - 1) * step for length, step in zip(shape, stride, strict=True)) >= stored:
        raise ValueError("the numbers of a tensor end early")
    if prod(shape) > max(stored, MOST_REPEATED):
        raise ValueError(f"a tensor repeats its numbers {prod(shape):,} times")
    return torch.frombuffer(content, dtype=dtype, count=stored).as_strided(shape, stride, offset)
