"""The scale of quantisation levels: a search in one dimension for the least projection error (Ye et al., 2019, who do
not say how they search).

Levels are multiples m_1 < ... < m_K of a scale q, with both signs. Of weights with magnitudes a sorted ascending and
their prefix sums, the error

    f(q) = sum_i min_k (a_i - m_k q)^2

takes one binary search for each border between levels, so thousands of scales can be tried. f is the lower envelope of
parabolas and has many local minima. What makes a global search possible: with M(q) the norm of the multipliers in use,
sqrt(f(q)) <= sqrt(f(p)) + M(p) |q - p|, because the assignment of p can be kept, and M falls as its argument grows.
Intervals that cannot hold a better scale by this bound are dropped, the others are split.
"""

import numpy as np

TOLERANCE = 2.0**-9
"""The distance at the scale found is at most 1 + TOLERANCE times the least one (and in practice nearly always the
least)."""

_FLOOR = 1e-6
"""Distances below this share of the norm count as none."""
_FIRST_INTERVALS = 64
_SPLIT = 4
_STEPS = 100


class _Errors:
    """f and its parabolas, for arrays of scales."""

    def __init__(self, magnitudes: np.ndarray, multipliers: np.ndarray) -> None:
        self.sorted = np.sort(magnitudes.ravel())
        self.sums = np.concatenate([[0.0], np.cumsum(self.sorted, dtype=np.float64)])
        self.total = float(np.square(self.sorted, dtype=np.float64).sum())
        self.multipliers = multipliers
        self.middles = (multipliers[1:] + multipliers[:-1]) / 2

    def parabolas(self, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(b, c) of f(q) = total - 2 b q + c q^2 under the assignment that is best at each scale."""
        borders = np.empty((len(scales), len(self.multipliers) + 1), dtype=np.int64)
        borders[:, 0], borders[:, -1] = 0, len(self.sorted)
        borders[:, 1:-1] = np.searchsorted(self.sorted, (scales[:, None] * self.middles).astype(np.float32))
        return np.diff(self.sums[borders], axis=1) @ self.multipliers, np.diff(borders, axis=1) @ np.square(
            self.multipliers
        )


def best_scale(magnitudes: np.ndarray, multipliers: np.ndarray) -> float:
    """The scale of least error for magnitudes (fp32, all above 0) and ascending multipliers (float64, the first may be
    0), within `TOLERANCE`."""
    errors = _Errors(magnitudes, multipliers)
    # With the best assignment q = sum(m a) / sum(m^2), which lies between mean(a) / m_K (large weights have large
    # multipliers) and max(a) / m, m the smallest multiplier that is not 0.
    least, most = (
        errors.sums[-1] / len(errors.sorted) / multipliers[-1],
        float(errors.sorted[-1]) / multipliers[multipliers > 0][0],
    )
    edges = np.geomspace(least / 2, most * 2, _FIRST_INTERVALS + 1)
    starts, ends = edges[:-1], edges[1:]
    floor = _FLOOR * np.sqrt(errors.total)
    best, best_distance = least, np.sqrt(errors.total)
    while len(starts):
        points, place = np.unique(np.concatenate([starts, ends]), return_inverse=True)
        b, c = errors.parabolas(points)
        distance = np.sqrt(np.maximum(errors.total - 2 * b * points + c * points**2, 0))
        fitted = np.divide(b, c, out=np.zeros_like(b), where=c > 0)  # c is 0 where every weight is at level 0
        bottom = np.sqrt(np.maximum(errors.total - b * fitted, 0))
        if bottom.min() < best_distance:
            best, best_distance = float(fitted[bottom.argmin()]), float(bottom.min())
        first, last = place[: len(starts)], place[len(starts) :]
        bound = (distance[first] + distance[last] - np.sqrt(c[first]) * (ends - starts)) / 2
        open_ = bound < best_distance / (1 + TOLERANCE) - floor
        cuts = np.linspace(starts[open_], ends[open_], _SPLIT + 1)
        starts, ends = cuts[:-1].ravel(), cuts[1:].ravel()
    return _settle(errors, best)


def _settle(errors: _Errors, scale: float) -> float:
    """The bottom of the valley a scale lies in: assign and fit in turn until nothing moves."""
    for _ in range(_STEPS):
        b, c = errors.parabolas(np.array([scale]))
        fitted = float(b[0] / c[0])
        if fitted == scale:
            break
        scale = fitted
    return scale
