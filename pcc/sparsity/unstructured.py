"""Unstructured sparsity: any weights may be zero (Han et al., 2015). The budget is a rate: of n weights the n / rate of largest magnitude stay."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from pcc.errors import PccError
from pcc.sparsity.connectivity import budget
from pcc.sparsity.structure import Packed, Structure


def largest(scores: np.ndarray, count: int) -> np.ndarray:
    """bool mask of the ``count`` largest entries of an array of any shape, ties by lower index."""
    mask = np.zeros(scores.size, dtype=bool)
    mask[np.argsort(-scores.ravel(), kind="stable")[:count]] = True
    return mask.reshape(scores.shape)


@dataclass(frozen=True)
class Unstructured(Structure):
    """One weight in ``rate`` stays, counted over the layer."""

    name: ClassVar[str] = "unstructured"

    rate: float

    def __post_init__(self) -> None:
        budget(1, self.rate)  # refuses rates below 1

    def project(self, weight: np.ndarray, groups: int = 1) -> np.ndarray:
        return np.where(largest(np.abs(weight), budget(weight.size, self.rate)), weight, np.float32(0))

    @classmethod
    def detect(cls, weight: np.ndarray, groups: int = 1) -> Self | str:
        kept = int(np.count_nonzero(weight))
        if kept == weight.size:
            return "no weight is zero"
        return cls(weight.size / kept) if kept else "every weight is zero"

    def pack(self, weight: np.ndarray, groups: int = 1) -> Packed:
        kept = weight != 0
        if int(kept.sum()) > budget(weight.size, self.rate):
            raise PccError(f"{int(kept.sum())} of {weight.size} weights are not zero: more than one in {self.rate:g}")
        values = weight[kept].astype(np.float32)
        return Packed(weight.shape, {"values": values}, pack_places(kept.ravel()))

    @staticmethod
    def unpack(packed: Packed) -> np.ndarray:
        weight = np.zeros(int(np.prod(packed.shape)), dtype=np.float32)
        weight[unpack_places(packed.index, weight.size)] = packed.data["values"]
        return weight.reshape(packed.shape)


def pack_places(kept: np.ndarray) -> dict[str, np.ndarray]:
    """Where a flat bool mask is set, in the smaller of two forms: one bit a weight, or gaps of few bits (Deep Compression's relative index)."""
    raise NotImplementedError


def unpack_places(index: dict[str, np.ndarray], size: int) -> np.ndarray:
    """The flat mask again."""
    raise NotImplementedError
