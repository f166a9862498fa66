"""Pattern and connectivity together: the exact projection on both at once.

Cutting one after the other by plain norms is not the nearest weight. It is, when connections compete by what they are
worth *after* their best pattern: the choice of a connection's pattern and whether the connection stays then do not
disturb each other. The same holds for groups of filters that share channels and patterns, with norms summed over the
group. Pattern pruning alone is the case of rate 1, connectivity alone that of one pattern with all taps.
"""

from dataclasses import dataclass

import numpy as np

from pcc.sparsity import connectivity, pattern


@dataclass(frozen=True)
class Projection:
    """The nearest weight, and how it was cut."""

    weight: np.ndarray
    """fp32 (O, I, kh, kw)."""
    choice: np.ndarray
    """int64 (O, I): the pattern of each connection, -1 where the connection is gone."""
    order: np.ndarray
    """int64 (O,): filters whose places are neighbours here share channels and patterns."""
    kept: float
    """Share of the squared norm that is still there, 0..1."""


def project(
    weight: np.ndarray,
    patterns: np.ndarray | None = None,
    rate: float = 1.0,
    *,
    scope: str = "layer",
    share: int = 1,
    groups: int = 1,
    order: np.ndarray | None = None,
) -> Projection:
    """The nearest weight whose connections use the patterns and whose number of connections is ``budget(total, rate)``.

    ``patterns`` (P, E) default to one with every tap. Groups of ``share`` filters have the same channels and patterns;
    ``order`` (O,) says which filters form a group (default: the better of consecutive filters and
    `connectivity.similar_order`). For the grouping it reports the result is exact; finding the best grouping is not
    attempted beyond those two.
    """
    patterns = pattern.every_tap(weight.shape[2] * weight.shape[3]) if patterns is None else patterns
    choice, order = choose(pattern.scores(weight, patterns), rate, scope=scope, share=share, groups=groups, order=order)
    projected = pattern.apply(weight, patterns, choice)
    norm = float(np.square(weight, dtype=np.float64).sum())
    return Projection(
        projected, choice, order, float(np.square(projected, dtype=np.float64).sum()) / norm if norm else 1.0
    )


def choose(
    scores: np.ndarray,
    rate: float = 1.0,
    *,
    scope: str = "layer",
    share: int = 1,
    groups: int = 1,
    order: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(choice, order) of `Projection` for the largest sum of scores (O, I, P), which say what a connection is worth
    under each pattern; as `project` else."""
    connectivity.check_share(share, len(scores), groups)
    orders = [order] if order is not None else [np.arange(len(scores))]
    if order is None and share > 1:
        orders.append(connectivity.similar_order(scores.reshape(len(scores), -1), share, groups))
    _, choice, order = max(
        (_cut(scores, candidate, rate, scope, share) for candidate in orders), key=lambda cut: cut[0]
    )
    return choice, order


def _cut(
    scores: np.ndarray, order: np.ndarray, rate: float, scope: str, share: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """(squared norm kept, choice (O, I), order) for one grouping of the filters."""
    grouped = connectivity.share_scores(scores, share, order)
    best = grouped.argmax(axis=2)
    worth = grouped.max(axis=2)
    stays = connectivity.select(worth, rate, scope)
    choice = np.empty(scores.shape[:2], dtype=np.int64)
    choice[order] = np.repeat(np.where(stays, best, -1), share, axis=0)
    return float(worth[stays].sum()), choice, order
