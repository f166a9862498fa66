"""Finds the structure in a convolution weight's zeros, whichever tool put them there, and the order of filters that lets most of them share."""

from dataclasses import dataclass, replace

import numpy as np

from pcc.sparsity import pattern
from pcc.sparsity.connectivity import SHARES
from pcc.sparsity.fkw import FKW, pack

_SLACK = 1 / 64
"""Filters may share a list of connections although that stores this part more of them: a few are zero by accident."""


@dataclass(frozen=True)
class SparseConnections:
    """Connections that are all zero, or keep the taps of a few patterns, or both: what FKW can hold."""

    patterns: np.ndarray
    """int32 (P, E); one pattern of all taps where there is only connectivity."""
    share: int
    """How many filters share channels and patterns."""
    order: np.ndarray
    """int64 (O,): original filter of each place; filters that share are neighbours. The identity where that is enough."""
    groups: int
    """The convolution's groups."""
    connections: int
    kept_connections: int
    """Connections that FKW stores, for each filter of a filter group."""
    taps: int

    @property
    def has_patterns(self) -> bool:
        return self.patterns.shape[1] < self.taps

    def pack(self, weight: np.ndarray) -> FKW:
        """FKW form of the weight that was looked at."""
        return pack(weight, self.groups, self.patterns, self.share, self.order)


def detect_structure(weight: np.ndarray, groups: int = 1) -> SparseConnections | str:
    """Patterns and missing connections in a weight (O, I/groups, kh, kw), with the largest groups of filters that share them; or why there are none.

    Filters that share are looked for as they stand, then after bringing filters with the same channels and patterns together.
    """
    filters, inputs, kh, kw = weight.shape
    if groups > 1 and inputs == 1:
        return "depthwise: a filter has one connection"
    used = weight.reshape(filters, inputs, kh * kw) != 0
    connections = used.any(axis=2)
    if not connections.any():
        return "every weight is zero"
    found = pattern.detect_shapes(used.reshape(-1, kh * kw))
    if isinstance(found, str) and connections.all():
        return f"no connection is all zero and {found}"
    patterns = pattern.every_tap(kh * kw) if isinstance(found, str) else found
    single = SparseConnections(patterns, 1, np.arange(filters), groups, connections.size, int(connections.sum()), kh * kw)
    for share in sorted(SHARES, reverse=True):
        if share > 1 and (filters // groups) % share == 0 and (sharing := _sharing(weight, single, share)):
            return sharing
    return single


def _sharing(weight: np.ndarray, single: SparseConnections, share: int) -> SparseConnections | None:
    """The structure with filters in groups of ``share``, given the one of single filters; None if it would store more."""
    filters, inputs, kh, kw = weight.shape
    used = weight.reshape(filters, inputs, kh * kw) != 0
    connections = used.any(axis=2)
    kinds_of_connections = _kinds(connections, single.groups)
    by_connections = np.argsort(kinds_of_connections, kind="stable")
    for order in (single.order, by_connections):
        stored = int(_shared(connections, order, share).sum()) * share
        if stored > single.kept_connections * (1 + _SLACK):
            continue
        if not single.has_patterns:
            return replace(single, share=share, order=order, kept_connections=stored)
        if order is by_connections:
            order = np.lexsort((_kinds(pattern.fit(weight, single.patterns), single.groups), kinds_of_connections))
        common = pattern.detect_shapes(_shared(used, order, share).reshape(-1, kh * kw))
        if not isinstance(common, str) and common.shape[1] == single.patterns.shape[1]:
            return replace(single, patterns=common, share=share, order=order, kept_connections=stored)
    return None


def _shared(used: np.ndarray, order: np.ndarray, share: int) -> np.ndarray:
    """What any filter of a group uses: (O, ...) to (O / share, ...)."""
    return np.logical_or.reduce(used[order].reshape(len(order) // share, share, *used.shape[1:]), axis=1)


def _kinds(rows: np.ndarray, groups: int) -> list[int]:
    """For each row the place of the first row of its convolution group that is equal."""
    first: dict[tuple[int, bytes], int] = {}
    per_group = len(rows) // groups
    return [first.setdefault((place // per_group, row.tobytes()), place) for place, row in enumerate(rows.astype(np.int8))]
