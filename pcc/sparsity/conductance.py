"""Conductance states of memristors: equally spaced, zero included (Yuan et al., 2019, arXiv 1908.11691).

A weight is the difference of two devices, one for each sign, so it is -(s - 1) q, ..., -q, 0, q, ..., (s - 1) q for
devices of s states, and (s - 1) q is the range of conductance. Unlike `pcc.sparsity.levels`, small weights go to zero:
that state is there in every cell.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from pcc.errors import PccError
from pcc.sparsity.codes import bits_for
from pcc.sparsity.levels import UniformLevels, exact_scale
from pcc.sparsity.scale import best_scale
from pcc.sparsity.structure import Packed
from pcc.sparsity.values import Values, distinct

MOST = 129
"""States of a device: zero and the levels of `UniformLevels` of 8 bits."""


@dataclass(frozen=True)
class Conductance(Values):
    """Multiples of a scale from 0 to ``states`` - 1, with both signs."""

    name: ClassVar[str] = "conductance"

    states: int

    def __post_init__(self) -> None:
        if not 2 <= self.states <= MOST:
            raise PccError(f"{self.states} conductance states: choose 2 to {MOST}")

    def scale(self, weight: np.ndarray) -> np.ndarray:
        """q, fp32 (), as near to the best as that of `UniformLevels`; 0 for a weight of zeros."""
        fitted = _own(weight, self.states)
        if fitted is None:
            fitted = exact_scale(best_scale(np.abs(weight[weight != 0]), np.arange(float(self.states))), self._bits)
        return np.array(fitted, dtype=np.float32)

    def nearest(self, weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
        middles = ((np.arange(self.states - 1) + 0.5) * float(scale)).astype(np.float32)
        levels = (np.arange(self.states) * float(scale)).astype(np.float32)
        return np.copysign(levels[np.searchsorted(middles, np.abs(weight))], weight)

    @classmethod
    def detect(cls, weight: np.ndarray, groups: int = 1) -> Self | str:
        if not weight.any():
            return "every weight is zero"
        fitted = _own(weight, MOST)
        if fitted is None:
            return f"the magnitudes are not among {MOST} equally spaced ones that start at zero"
        return cls(round(float(np.abs(weight).max()) / fitted) + 1)

    def pack(self, weight: np.ndarray, groups: int = 1) -> Packed:
        """As `UniformLevels` of just enough bits: cells in state zero are in the index."""
        if _own(weight, self.states) is None:
            raise PccError(f"the weights are not in {self.states} conductance states: project them first")
        return UniformLevels(self._bits).pack(weight)

    @staticmethod
    def unpack(packed: Packed) -> np.ndarray:
        return UniformLevels.unpack(packed)

    @property
    def _bits(self) -> int:
        return bits_for(self.states - 1) + 1


def _own(weight: np.ndarray, states: int) -> float | None:
    """The scale of a weight in these states (0 where it is all zero), None if it is not."""
    magnitudes = distinct(np.abs(weight), states - 1)
    if magnitudes is None or not len(magnitudes):
        return None if magnitudes is None else 0.0
    found = UniformLevels.explain(magnitudes)
    return found[0] if found and magnitudes[-1] <= found[0] * (states - 1) else None
