"""Small weights for property tests, with ties and zeros on purpose, and brute force to compare projections with."""

from collections.abc import Iterator
from itertools import combinations, product

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pcc.sparsity import joint, pattern


def weights(
    filters: st.SearchStrategy[int], inputs: st.SearchStrategy[int], kernel: tuple[int, int] = (3, 3)
) -> st.SearchStrategy[np.ndarray]:
    """Weights (O, I, kh, kw) of small integers (so that equal norms are common) and of any finite floats."""
    shapes = st.tuples(filters, inputs).map(lambda size: (*size, *kernel))
    integers = st.integers(-3, 3).map(np.float32)
    floats = st.floats(-4, 4, width=32)
    return shapes.flatmap(
        lambda shape: hnp.arrays(np.float32, shape, elements=integers) | hnp.arrays(np.float32, shape, elements=floats)
    )


def nonzero_weight(seed: int, *shape: int) -> np.ndarray:
    """A weight without a zero, so that what a projection keeps can be counted in its zeros."""
    rng = np.random.default_rng(seed)
    return (rng.uniform(0.1, 1, shape) * rng.choice([-1, 1], shape)).astype(np.float32)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(a.astype(np.float64) - b).sum())


def cut_connections(
    weight: np.ndarray,
    rate: float,
    *,
    scope: str = "layer",
    share: int = 1,
    groups: int = 1,
    order: np.ndarray | None = None,
) -> np.ndarray:
    """Connectivity alone; without an ``order`` neighbours share."""
    order = np.arange(len(weight)) if order is None else order
    return joint.project(weight, rate=rate, scope=scope, share=share, groups=groups, order=order).weight


def cut_to_patterns(weight: np.ndarray, patterns: np.ndarray = pattern.DESIGNED) -> np.ndarray:
    """Patterns alone."""
    return joint.project(weight, patterns).weight


def connections_with(weight: np.ndarray, patterns: np.ndarray) -> int:
    """How many connections use one of the patterns; `PccError` where one uses none."""
    return int((pattern.fit(weight, patterns) >= 0).sum())


def cuts(groups: int, channels: int, patterns: int, kept: int, *, per_group: bool) -> Iterator[np.ndarray]:
    """Every way to keep ``kept`` connections (in all, or per filter group) under some pattern: choices (groups,
    channels), -1 for gone."""
    if per_group:
        rows = list(cuts(1, channels, patterns, kept, per_group=False))
        for chosen in product(rows, repeat=groups):
            yield np.concatenate(chosen)
        return
    for places in combinations(range(groups * channels), kept):
        for chosen in product(range(patterns), repeat=kept):
            choice = np.full(groups * channels, -1)
            choice[list(places)] = chosen
            yield choice.reshape(groups, channels)
