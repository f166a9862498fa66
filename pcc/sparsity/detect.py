"""Finds the structure in a convolution weight's zeros, whichever tool put them there, and the order of filters that lets most of them share."""

from dataclasses import dataclass

import numpy as np

from pcc.sparsity import pattern
from pcc.sparsity.connectivity import SHARES
from pcc.sparsity.fkw import FKW, pack

_SLACK = 1 / 64
"""Filters may share a list of kernels although that stores this part more elements: a few weights are zero by accident."""


@dataclass(frozen=True)
class SparseKernels:
    """Kernels that are all zero, or keep the taps of a few patterns, or both: what FKW can hold."""

    patterns: np.ndarray
    """int32 (P, E); one pattern of all taps where there is only connectivity."""
    group: int
    """How many filters share channels and patterns."""
    order: np.ndarray
    """int64 (O,): original filter of each place; filters that share are neighbours. The identity where that is enough."""
    groups: int
    """The convolution's groups."""
    kernels: int
    kept_kernels: int
    """Kernels that FKW stores, for each filter of a filter group."""
    taps: int

    @property
    def has_patterns(self) -> bool:
        return self.patterns.shape[1] < self.taps

    def pack(self, weight: np.ndarray) -> FKW:
        """FKW form of the weight that was looked at."""
        return pack(weight, self.groups, self.patterns, self.group, self.order)


def detect_structure(weight: np.ndarray, groups: int = 1) -> SparseKernels | str:
    """Patterns and missing kernels in a weight (O, I/groups, kh, kw), with the largest groups of filters that share them; or why there are none.

    Filters that share are looked for as they stand, then after bringing filters with the same channels and patterns together.
    """
    filters, inputs, kh, kw = weight.shape
    if groups > 1 and inputs == 1:
        return "depthwise: a filter has one kernel"
    used = weight.reshape(filters, inputs, kh * kw) != 0
    links = used.any(axis=2)
    if not links.any():
        return "every weight is zero"
    found = pattern.detect_shapes(used.reshape(-1, kh * kw))
    if isinstance(found, str) and links.all():
        return f"no kernel is all zero and {found}"
    has_patterns = not isinstance(found, str)
    patterns = found if has_patterns else pattern.every_tap(kh * kw)
    kept = int(links.sum())
    single = SparseKernels(patterns, 1, np.arange(filters), groups, links.size, kept, kh * kw)

    most_stored = kept * patterns.shape[1] * (1 + _SLACK)
    for share in sorted(SHARES, reverse=True)[:-1]:
        if (filters // groups) % share:
            continue
        for order in (np.arange(filters), _alike_together(pattern.fit(weight, patterns), groups)):
            shared = used[order].reshape(filters // share, share, inputs, kh * kw).any(axis=1)
            common = pattern.detect_shapes(shared.reshape(-1, kh * kw)) if has_patterns else patterns
            stored = int(shared.any(axis=2).sum()) * share
            if not isinstance(common, str) and stored * common.shape[1] <= most_stored:
                return SparseKernels(common, share, order, groups, links.size, stored, kh * kw)
    return single


def _alike_together(choice: np.ndarray, groups: int) -> np.ndarray:
    """An order that makes filters of one convolution group with the same links neighbours, and among them those with the same patterns; (O,).

    Otherwise filters come in the order of the first of their kind.
    """
    conv_group = np.repeat(np.arange(groups), len(choice) // groups)
    by_patterns = _first_alike(np.column_stack([conv_group, choice]))
    by_links = _first_alike(np.column_stack([conv_group, choice >= 0]))
    return np.lexsort((by_patterns, by_links))


def _first_alike(rows: np.ndarray) -> np.ndarray:
    """For each row the index of the first row equal to it."""
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return first[inverse.ravel()]
