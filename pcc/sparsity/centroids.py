"""Centroids: the weights that are not zero share a few values (Han et al., 2016; joint clustering training of Ye et
al., 2018, arXiv 1811.01907).

In one dimension k-means has an exact solution: clusters are intervals of the sorted weights, and the best k intervals
follow from the best k - 1 by dynamic programming (Wang and Song, 2011). It is run over at most `BINS` cells; where
there are more different weights than that, cells end where intervals of equal width do and where quantiles do, the
optimum is the one among clusters of whole cells, and Lloyd's steps on all weights follow. Nothing is random.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from pcc.errors import PccError
from pcc.sparsity import codes
from pcc.sparsity.structure import Packed
from pcc.sparsity.values import Values, distinct, pack_values, spread, unpack_codes

MOST = 256
"""Centroids: codes are at most a byte."""

BINS = 1024

_STEPS = 1000


def assign(weight: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The nearest of ascending centroids for each weight, int16 of the weight's shape, ties to the lower; -1 where the
    weight is zero."""
    middles = (centroids[1:].astype(np.float64) + centroids[:-1]) / 2
    return np.where(weight != 0, np.searchsorted(middles.astype(np.float32), weight), -1).astype(np.int16)


def cluster(weight: np.ndarray, count: int) -> np.ndarray:
    """Ascending centroids for the weights that are not zero, fp32 (count,) or fewer where there are fewer different
    weights.

    The least sum of squares for up to `BINS` different weights, else as the file says; weights that have no more than
    ``count`` values keep them.
    """
    values = distinct(weight, count)
    if values is not None:
        return values
    ordered = np.sort(weight[weight != 0]).astype(np.float64)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    borders = _lloyd(ordered, sums, _optimal(_cells(ordered), ordered, sums, count))
    return (np.diff(sums[borders]) / np.diff(borders)).astype(np.float32)


def _cells(ordered: np.ndarray) -> np.ndarray:
    """Where the cells of sorted values start, and the end of the last: int64 (cells + 1,)."""
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    if len(starts) > BINS:
        wide = np.searchsorted(ordered, np.linspace(ordered[0], ordered[-1], BINS // 2 + 1)[:-1])
        full = np.searchsorted(ordered, ordered[np.arange(BINS // 2) * len(ordered) // (BINS // 2)])
        starts = np.unique(np.concatenate([wide, full]))
    return np.append(starts, len(ordered))


def _optimal(cells: np.ndarray, ordered: np.ndarray, sums: np.ndarray, count: int) -> np.ndarray:
    """The ends of the best ``count`` clusters of whole cells, as borders in the sorted values: int64 (count + 1,) at
    most."""
    count = min(count, len(cells) - 1)
    first, second = sums[cells], np.concatenate([[0.0], np.cumsum(np.square(ordered))])[cells]
    members = np.maximum(cells[None, :] - cells[:, None], 1)
    cost = second[None, :] - second[:, None] - np.square(first[None, :] - first[:, None]) / members
    cost[np.tril_indices(len(cells))] = np.inf  # a cluster has at least one cell
    best, origins = cost[0], []
    for _ in range(count - 1):
        through = best[:, None] + cost
        origins.append(through.argmin(axis=0))
        best = through.min(axis=0)
    ends = [len(cells) - 1]
    for origin in reversed(origins):
        ends.append(int(origin[ends[-1]]))
    return cells[np.array([0, *reversed(ends)])]


def _lloyd(ordered: np.ndarray, sums: np.ndarray, borders: np.ndarray) -> np.ndarray:
    """Borders that stay when centroids are moved to the means of their members and members to the nearest centroid (or
    after `_STEPS` rounds)."""
    for _ in range(_STEPS):
        means = np.diff(sums[borders]) / np.diff(borders)
        moved = np.concatenate(
            [[0], np.searchsorted(ordered, (means[1:] + means[:-1]) / 2, side="right"), [len(ordered)]]
        )
        if (np.diff(moved) == 0).any() or np.array_equal(moved, borders):
            break
        borders = moved
    return borders


@dataclass(frozen=True)
class Centroids(Values):
    """At most ``clusters`` different values beside zero. Zeros stay zero; all other weights go to their nearest
    centroid."""

    name: ClassVar[str] = "centroids"

    clusters: int

    def __post_init__(self) -> None:
        if not 1 <= self.clusters <= MOST:
            raise PccError(f"{self.clusters} centroids: choose 1 to {MOST}")

    def scale(self, weight: np.ndarray) -> np.ndarray:
        """The code book, as `cluster` finds it; how near it is to the least distance stands there."""
        return cluster(weight, self.clusters)

    def nearest(self, weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return np.append(scale, np.float32(0))[assign(weight, scale)]  # code -1 is the zero at the end

    @classmethod
    def detect(cls, weight: np.ndarray, groups: int = 1) -> Self | str:
        values = distinct(weight, MOST)
        if values is None:
            return f"more than {MOST} different values"
        return cls(len(values)) if len(values) else "every weight is zero"

    def pack(self, weight: np.ndarray, groups: int = 1) -> Packed:
        """The code book, ascending, and a code of just enough bits for each weight that is not zero."""
        values = distinct(weight, self.clusters)
        if values is None:
            raise PccError(
                f"the weights have more than {self.clusters} different values beside zero: project them first"
            )
        return pack_values(weight, np.searchsorted(values, weight[weight != 0]), codes.bits_for(len(values)), values)

    @staticmethod
    def unpack(packed: Packed) -> np.ndarray:
        kept, used = unpack_codes(packed)
        return spread(packed, kept, packed.data["scale"][used] if kept.any() else 0)
