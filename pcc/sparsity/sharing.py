"""Finds filters that share connections in a convolution weight's zeros, and the order of filters that lets most of them
share."""

from dataclasses import dataclass, replace

import numpy as np

from pcc.sparsity import pattern
from pcc.sparsity.connectivity import SHARES

_SLACK = 1 / 64
"""Filters may share a list of connections although that stores this part more of them: a few are zero by accident."""


@dataclass(frozen=True)
class Sharing:
    """Groups of filters that keep the same connections, each with one of a few patterns: what FKW can hold."""

    patterns: np.ndarray
    """int32 (P, E); one pattern of all taps where there is only connectivity."""
    share: int
    """How many filters share channels and patterns."""
    order: np.ndarray
    """int64 (O,): original filter of each place; filters that share are neighbours. The identity where that is
    enough."""
    stored: int
    """Connections that FKW stores, counted for each filter."""


def find_sharing(weight: np.ndarray, patterns: np.ndarray, groups: int = 1) -> Sharing:
    """The largest groups of filters that share connections in a weight (O, I/groups, kh, kw) whose zeros follow
    patterns (P, E).

    They are looked for as they stand, then after bringing filters with the same channels and patterns together.
    """
    filters = len(weight)
    single = Sharing(patterns, 1, np.arange(filters), int(weight.any(axis=(2, 3)).sum()))
    for share in sorted(SHARES, reverse=True):
        if share > 1 and (filters // groups) % share == 0 and (sharing := _sharing(weight, single, share, groups)):
            return sharing
    return single


def _sharing(weight: np.ndarray, single: Sharing, share: int, groups: int) -> Sharing | None:
    """The structure with filters in groups of ``share``, given the one of single filters; None if it would store
    more."""
    filters, inputs, kh, kw = weight.shape
    used = weight.reshape(filters, inputs, kh * kw) != 0
    connections = used.any(axis=2)
    kinds_of_connections = _kinds(connections, groups)
    by_connections = np.argsort(kinds_of_connections, kind="stable")
    for order in (single.order, by_connections):
        stored = int(_shared(connections, order, share).sum()) * share
        if stored > single.stored * (1 + _SLACK):
            continue
        entries = single.patterns.shape[1]
        if entries == kh * kw:
            return replace(single, share=share, order=order, stored=stored)
        if order is by_connections:
            order = np.lexsort((_kinds(pattern.fit(weight, single.patterns), groups), kinds_of_connections))
        common = pattern.detect_shapes(_shared(used, order, share).reshape(-1, kh * kw))
        if not isinstance(common, str) and common.shape[1] == entries:
            return Sharing(common, share, order, stored)
    return None


def _shared(used: np.ndarray, order: np.ndarray, share: int) -> np.ndarray:
    """What any filter of a group uses: (O, ...) to (O / share, ...)."""
    return np.logical_or.reduce(used[order].reshape(len(order) // share, share, *used.shape[1:]), axis=1)


def _kinds(rows: np.ndarray, groups: int) -> list[int]:
    """For each row the place of the first row of its convolution group that is equal."""
    first: dict[tuple[int, bytes], int] = {}
    per_group = len(rows) // groups
    return [
        first.setdefault((place // per_group, row.tobytes()), place) for place, row in enumerate(rows.astype(np.int8))
    ]
