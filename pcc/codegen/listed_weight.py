"""Sparse weights of 1x1 windows that lie in a library once: a processor's kernels read them in lists
(`pcc.codegen.kernels.shared_tables.SharedTables`), and the tables of a GPU are made of the lists when the library is
loaded."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pcc.sparsity.fkw import FKW


def fkw_digest(weight: FKW) -> bytes:
    """SHA-256 of a packed weight: everything that it holds."""
    digest = hashlib.sha256(f"{weight.shape} {weight.groups} {weight.share}".encode())
    for values in (weight.patterns, weight.reorder, weight.offset, weight.index, weight.stride, weight.weight):
        digest.update(f"{values.shape} {values.dtype}".encode() + np.ascontiguousarray(values).tobytes())
    return digest.digest()


@dataclass(frozen=True, eq=False)
class ListedWeight:
    """A weight in two constants of a program: ``entries`` and ``lists`` of `SharedTables`, numbers in fp32."""

    weight: FKW
    entries: str
    """The constant's name."""
    lists: str
    size: int
    """Filters of a group."""
    plane: int
    """How far the planes of two channels are apart that entries speak of."""

    @cached_property
    def digest(self) -> bytes:
        return fkw_digest(self.weight)


@dataclass(frozen=True, eq=False)
class FromLists:
    """Two constants of a program that can be made of lists instead: the weights, and where each reads."""

    weight: FKW
    weights: str
    """The constant's name."""
    places: str
    call: Callable[[ListedWeight, Mapping[str, Any]], Any]
    """The call that makes them, from views: of ``entries`` and ``lists``, and of what it fills, ``weight`` and
    ``places``."""

    @cached_property
    def digest(self) -> bytes:
        return fkw_digest(self.weight)
