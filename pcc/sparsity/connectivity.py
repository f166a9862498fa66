"""Connectivity: whole connections between input channels and filters are removed (PCONV, PatDNN).

A *connection* is ``weight[o, i]``: the kh x kw weights from input channel i to filter o, which papers call a kernel. A
*kernel* in pcc is machine code.

The budget is exact: of n connections, ``budget(n, rate)`` stay, those of largest norm, equal norms by lower index. It
is spent over the whole layer, or in every filter alike, which balances the work of filters. Filters may share their
list of kept channels in groups of 2 or 4, so that a register tile loads an input once for all of them. For 1x1
convolutions a connection is one weight and this is unstructured pruning.
"""

import numpy as np

from pcc.errors import PccError
from pcc.sparsity.budget import budget

SCOPES = ("layer", "filter")
SHARES = (1, 2, 4)


def select(scores: np.ndarray, rate: float, scope: str = "layer") -> np.ndarray:
    """Which entries of (R, C) scores stay: the largest, exactly as many as the budget, ties by index; bool (R, C).

    ``layer`` spends the budget over all entries (a row may lose everything), ``filter`` in each row alike.
    """
    check_scope(scope)
    rows = scores.reshape(1, -1) if scope == "layer" else scores
    kept = np.zeros(rows.shape, dtype=bool)
    largest = np.argsort(-rows, axis=1, kind="stable")[:, : budget(rows.shape[1], rate)]
    np.put_along_axis(kept, largest, True, axis=1)
    return kept.reshape(scores.shape)


def share_scores(scores: np.ndarray, share: int, order: np.ndarray | None = None) -> np.ndarray:
    """Scores (O, ...) summed over groups of ``share`` filters that are neighbours in ``order`` (default: as they
    stand): (O / share, ...)."""
    ordered = scores if order is None else scores[order]
    return ordered.reshape(len(scores) // share, share, *scores.shape[1:]).sum(axis=1)


def check_scope(scope: str) -> None:
    """Raises `PccError` for a scope that does not exist."""
    if scope not in SCOPES:
        raise PccError(f"unknown scope '{scope}' of connectivity pruning: choose one of {', '.join(SCOPES)}")


def check_share(share: int, filters: int, groups: int) -> None:
    """Raises `PccError` where groups of ``share`` filters do not fill the filters of a convolution (with ``groups``
    groups) exactly."""
    if share not in SHARES:
        raise PccError(f"filters share channels in groups of {', '.join(map(str, SHARES))}, not {share}")
    if (filters // groups) % share:
        raise PccError(
            f"{filters // groups} filters{' in each convolution group' if groups > 1 else ''} do not divide into "
            f"groups of {share}"
        )


def similar_order(features: np.ndarray, share: int, groups: int = 1) -> np.ndarray:
    """An order of filters in which groups of ``share`` neighbours have like connections, int64 (O,).

    ``features`` are (O, F) non-negative scores, one row a filter. Greedy: the largest filter left (ties: lower index)
    takes the filters most like what its group has so far, by cosine. Filters stay inside their convolution group;
    groups come in order of their first filter.
    """
    size = len(features) // groups
    return np.concatenate(
        [start + _similar_within(features[start : start + size], share) for start in range(0, len(features), size)]
    )


def _similar_within(features: np.ndarray, share: int) -> np.ndarray:
    norms = np.linalg.norm(features, axis=1)
    directions = features / np.maximum(norms, np.finfo(np.float64).tiny)[:, None]
    alike = directions @ directions.T
    left = np.ones(len(features), dtype=bool)
    found: list[list[int]] = []
    for first in np.argsort(-norms, kind="stable"):
        if not left[first]:
            continue
        members, likeness = [int(first)], alike[first].copy()
        left[first] = False
        while len(members) < share:
            best = int(np.where(left, likeness, -np.inf).argmax())
            left[best] = False
            members.append(best)
            likeness += alike[best]
        found.append(sorted(members))
    return np.array([filter_ for members in sorted(found) for filter_ in members])
