"""Window and combined-kernel pruning (Campfire, Gamboa et al., 2020): every kernel keeps its largest taps, in whatever shape; every filter as many kernels.

Patterns (`pcc.sparsity.kernels`) are the same cut with the shapes confined to a few. A window that happens to use 16 shapes or fewer compiles as patterns,
others as a dense layer. Both cuts together are one projection, and exact: kernels compete by what their window has left.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from pcc.errors import PccError
from pcc.sparsity.connectivity import budget, select
from pcc.sparsity.places import pack_places
from pcc.sparsity.structure import Packed
from pcc.sparsity.unstructured import Unstructured
from pcc.sparsity.zeros import Zeros


@dataclass(frozen=True)
class Window(Zeros):
    """In every kernel one tap in ``rate`` stays (2.25 keeps 4 of 9), in every filter one kernel in ``kernels``.

    The one tap of a 1x1 kernel, and of a linear layer's, stays as long as the kernel does.
    """

    name: ClassVar[str] = "window"

    rate: float
    kernels: float = 1.0

    def __post_init__(self) -> None:
        budget(1, self.rate)  # refuses rates below 1
        budget(1, self.kernels)

    def keep(self, scores: np.ndarray, groups: int = 1) -> np.ndarray:
        of_tap = _kernels(scores)
        window = np.zeros(of_tap.shape, dtype=bool)
        largest = np.argsort(-of_tap, axis=2, kind="stable")[:, :, : budget(of_tap.shape[2], self.rate)]
        np.put_along_axis(window, largest, True, axis=2)
        stays = select(np.where(window, of_tap, 0).sum(axis=2), self.kernels, "filter")
        return (window & stays[:, :, None]).reshape(scores.shape)

    @classmethod
    def detect(cls, weight: np.ndarray, groups: int = 1) -> Self | str:
        taps, kernels = _most(weight)
        _, all_kernels, all_taps = _kernels(weight).shape
        if taps == 0:
            return "every weight is zero"
        return cls(all_taps / taps, all_kernels / kernels) if taps < all_taps else f"some kernels use all {taps} taps"

    def pack(self, weight: np.ndarray, groups: int = 1) -> Packed:
        _, all_kernels, all_taps = _kernels(weight).shape
        for most, total, rate, where, what in zip(
            _most(weight), (all_taps, all_kernels), (self.rate, self.kernels), ("kernel", "filter"), ("weights", "kernels"), strict=True
        ):
            if most > budget(total, rate):
                raise PccError(f"a {where} has {most} {what} that are not zero: more than the {budget(total, rate)} of {total} that a rate of {rate:g} leaves")
        kept = weight != 0
        return Packed(weight.shape, {"weight": weight[kept].astype(np.float32)}, pack_places(kept.ravel()))

    @staticmethod
    def unpack(packed: Packed) -> np.ndarray:
        return Unstructured.unpack(packed)


def _kernels(weight: np.ndarray) -> np.ndarray:
    """(filters, kernels of a filter, taps)."""
    return weight.reshape(*weight.shape[:2], -1)


def _most(weight: np.ndarray) -> tuple[int, int]:
    """The most taps that a kernel uses, and the most kernels that a filter uses."""
    of_kernel = np.count_nonzero(_kernels(weight), axis=2)
    return int(of_kernel.max()), int(np.count_nonzero(of_kernel, axis=1).max())
