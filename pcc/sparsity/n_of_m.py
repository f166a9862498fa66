"""N:M sparsity: of every M neighbouring input channels a filter's tap keeps at most N weights (Zhou et al., ICLR 2021;
2:4 is what NVIDIA's sparse tensor cores multiply, Mishra et al., 2021).

Neighbours lie along the input channels, where NVIDIA's tools prune convolutions; the last group of a filter may be
smaller.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from pcc.errors import PccError
from pcc.sparsity.places import pack_nonzeros, unpack_nonzeros
from pcc.sparsity.structure import Packed
from pcc.sparsity.zeros import Zeros

_GROUPS = (4, 2, 8, 16)
"""The M that detection looks for; 4 is the usual one."""


@dataclass(frozen=True)
class NofM(Zeros):
    """At most ``n`` weights of every ``m``."""

    name: ClassVar[str] = "n-of-m"

    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.n <= self.m:
            raise PccError(f"n-of-m: {self.n} of {self.m} weights: give an n of 1 or more and an m that is not less")

    def keep(self, scores: np.ndarray, groups: int = 1) -> np.ndarray:
        channels = scores.shape[1]
        grouped = _grouped(scores, self.m, fill=-np.inf)
        kept = np.zeros(grouped.shape, dtype=bool)
        np.put_along_axis(kept, np.argsort(-grouped, axis=2, kind="stable")[:, :, : self.n], True, axis=2)
        return kept.reshape(len(scores), -1, *scores.shape[2:])[:, :channels]

    @classmethod
    def detect(cls, weight: np.ndarray, groups: int = 1) -> Self | str:
        if not weight.any():
            return "every weight is zero"
        found = [(int(np.count_nonzero(_grouped(weight, m), axis=2).max()), m) for m in _GROUPS if weight.shape[1] >= m]
        if not found:
            return f"{weight.shape[1]} input channels are no group"
        n, m = min(found, key=lambda pair: pair[0] / pair[1])
        return cls(n, m) if n < m else f"some groups of {m} input channels have no zero"

    def pack(self, weight: np.ndarray, groups: int = 1) -> Packed:
        most = int(np.count_nonzero(_grouped(weight, self.m), axis=2).max())
        if most > self.n:
            raise PccError(f"{most} of {self.m} neighbouring weights are not zero: more than {self.n}")
        return pack_nonzeros(weight)

    @staticmethod
    def unpack(packed: Packed) -> np.ndarray:
        return unpack_nonzeros(packed)


def _grouped(weight: np.ndarray, m: int, fill: float = 0) -> np.ndarray:
    """(filters, groups, m, ...), the last group filled up."""
    missing = -weight.shape[1] % m
    full = (
        np.pad(weight, [(0, 0), (0, missing), *[(0, 0)] * (weight.ndim - 2)], constant_values=fill)
        if missing
        else weight
    )
    return full.reshape(len(weight), -1, m, *weight.shape[2:])
