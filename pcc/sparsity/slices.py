"""Whole slices of a weight removed, so that a smaller dense weight is left: what filters, channels and columns share
(StructADMM, Zhang et al., 2018).

A slice is a set of weights that go together; each weight lies in one. The slices of largest norm stay. In a grouped
convolution every group has its own slices and keeps the same number of them, so that what is left is a grouped
convolution again. Where a group has one slice (the filter of a depthwise convolution) the slices of all groups compete,
and a group without its slice is gone.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Self

import numpy as np

from pcc.errors import PccError
from pcc.sparsity.budget import budget, largest
from pcc.sparsity.places import pack_places, unpack_places
from pcc.sparsity.structure import Packed
from pcc.sparsity.zeros import Zeros


@dataclass(frozen=True)
class Slices(Zeros):
    """One slice in ``rate`` stays; their number (in a group) is then rounded up to a ``multiple`` that the hardware
    likes (Xu et al., 2018), all at most."""

    rate: float
    multiple: int = 1

    def __post_init__(self) -> None:
        budget(1, self.rate)  # refuses rates below 1
        if self.multiple < 1:
            raise PccError(
                f"{self.name}: the number that stays cannot be a multiple of {self.multiple}: give 1 or more"
            )

    @staticmethod
    @abstractmethod
    def split(weight: np.ndarray, groups: int) -> np.ndarray:
        """A weight (O, I/groups, kh, kw) or (O, I) as its slices: (groups, slices of a group, ...)."""

    @staticmethod
    @abstractmethod
    def join(slices: np.ndarray) -> np.ndarray:
        """The weight whose slices these are; columns give the matrix (O, slices of a group)."""

    def keep(self, scores: np.ndarray, groups: int = 1) -> np.ndarray:
        slices = self.split(scores, groups)
        chosen = self.choose(scores, groups).reshape(*slices.shape[:2], *[1] * (slices.ndim - 2))
        return self.join(np.broadcast_to(chosen, slices.shape).copy()).reshape(scores.shape)

    def choose(self, scores: np.ndarray, groups: int = 1) -> np.ndarray:
        """Which slices stay, bool (groups * slices of a group,): as many as the budget says."""
        slices = self.split(scores, groups)
        rows = _competing(slices.reshape(*slices.shape[:2], -1).sum(axis=2))
        return np.concatenate([largest(row, self.left_of(rows.shape[1])) for row in rows])

    def left_of(self, count: int) -> int:
        """How many of ``count`` slices stay."""
        return min(count, -(-budget(count, self.rate) // self.multiple) * self.multiple)

    def thin(self, weight: np.ndarray, chosen: np.ndarray, groups: int = 1) -> tuple[np.ndarray, int]:
        """The smaller dense weight made of the chosen slices, and its groups."""
        slices = self.split(weight, groups)
        left = int(chosen.sum()) if slices.shape[1] == 1 else groups
        return self.join(slices.reshape(-1, *slices.shape[2:])[chosen].reshape(left, -1, *slices.shape[2:])), left

    @classmethod
    def widen(cls, thin: np.ndarray, chosen: np.ndarray, shape: tuple[int, ...], groups: int = 1) -> np.ndarray:
        """The weight of a shape with zeros in the slices that were not chosen."""
        slices = cls.split(np.zeros(shape, dtype=np.float32), groups)
        flat = np.zeros((len(chosen), *slices.shape[2:]), dtype=np.float32)
        left = int(chosen.sum()) if slices.shape[1] == 1 else groups
        flat[chosen] = cls.split(thin, left).reshape(-1, *slices.shape[2:])
        return cls.join(flat.reshape(slices.shape)).reshape(shape)

    @classmethod
    def detect(cls, weight: np.ndarray, groups: int = 1) -> Self | str:
        slices = cls.split(weight, groups)
        used = _competing(np.count_nonzero(slices.reshape(*slices.shape[:2], -1), axis=2) > 0)
        most = int(used.sum(axis=1).max())
        if most == used.shape[1]:
            return (
                f"no {cls.name} is all zero" if used.all() else f"in some convolution group no {cls.name} is all zero"
            )
        return cls(used.shape[1] / most) if most else "every weight is zero"

    def pack(self, weight: np.ndarray, groups: int = 1) -> Packed:
        """The thin weight (`thin`), as a dense kernel takes it, and which slices it has."""
        chosen = self.choose(np.square(weight, dtype=np.float64), groups)
        thin, _ = self.thin(weight, chosen, groups)
        if np.count_nonzero(thin) < np.count_nonzero(weight):
            raise PccError(f"more {self.name}s than one in {self.rate:g} are not zero")
        values = np.ascontiguousarray(thin + np.float32(0), dtype=np.float32)
        return Packed(
            weight.shape, {"weight": values}, {**pack_places(chosen), "groups": np.array([groups], dtype=np.int32)}
        )

    @classmethod
    def restore(cls, packed: Packed) -> np.ndarray:
        """What `unpack` of each kind does."""
        groups = int(packed.index["groups"][0])
        slices = cls.split(np.zeros(packed.shape, dtype=bool), groups)
        return cls.widen(
            packed.data["weight"], unpack_places(packed.index, slices.shape[0] * slices.shape[1]), packed.shape, groups
        )


def _competing(of_slices: np.ndarray) -> np.ndarray:
    """(groups, slices of a group) as rows that keep the same number each."""
    return of_slices.reshape(1, -1) if of_slices.shape[1] == 1 else of_slices
