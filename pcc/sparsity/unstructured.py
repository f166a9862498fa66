"""Unstructured sparsity: any weights may be zero (Han et al., 2015). The budget is a rate: of n weights the n / rate of
largest magnitude stay."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from pcc.errors import PccError
from pcc.sparsity.budget import budget, largest
from pcc.sparsity.places import pack_nonzeros, unpack_nonzeros
from pcc.sparsity.structure import Packed
from pcc.sparsity.zeros import Zeros


@dataclass(frozen=True)
class Unstructured(Zeros):
    """One weight in ``rate`` stays, counted over the layer."""

    name: ClassVar[str] = "unstructured"

    rate: float

    def __post_init__(self) -> None:
        budget(1, self.rate)  # refuses rates below 1

    def keep(self, scores: np.ndarray, groups: int = 1) -> np.ndarray:
        return largest(scores, budget(scores.size, self.rate))

    @classmethod
    def detect(cls, weight: np.ndarray, groups: int = 1) -> Self | str:
        kept = int(np.count_nonzero(weight))
        if kept == weight.size:
            return "no weight is zero"
        return cls(weight.size / kept) if kept else "every weight is zero"

    def pack(self, weight: np.ndarray, groups: int = 1) -> Packed:
        if (kept := int(np.count_nonzero(weight))) > budget(weight.size, self.rate):
            raise PccError(f"{kept} of {weight.size} weights are not zero: more than one in {self.rate:g}")
        return pack_nonzeros(weight)

    @staticmethod
    def unpack(packed: Packed) -> np.ndarray:
        return unpack_nonzeros(packed)
