"""Filter-kernel reorder (PatDNN, Niu et al., ASPLOS 2020): the order of filters in which neighbours have like
connections.

Groups of filters that share their connections stay together. They are sorted by length, the number of connections, long
ones first, so that blocks of neighbours take equally long and no thread starts a long block last. Among those of like
length a greedy chain puts next to each filter the one that has most (channel, pattern) in common with it, so that a
block of filters reads few different inputs. (Connections inside a filter are ordered by `pcc.sparsity.fkw.pack`.)
"""

import numpy as np

from pcc.sparsity import pattern
from pcc.sparsity.kernels import Kernels

_LENGTH_CLASSES = 16
"""Lengths that differ by less than this part of the longest count as alike."""


def filter_order(weight: np.ndarray, structure: Kernels, groups: int = 1) -> np.ndarray:
    """The original filter of each place, int64 (O,), for a weight (O, I/groups, kh, kw) in which that structure was
    found.

    Filters stay inside their convolution group. Ties go to the filter that stands first, so a weight that is in order
    stays as it is.
    """
    filters, inputs, kh, kw = weight.shape
    size = structure.share
    patterns = structure.taps(weight)
    members = structure.places(filters).reshape(-1, size)
    shared = (weight[members.ravel()] != 0).reshape(filters // size, size, inputs, kh, kw).any(axis=1)
    choice = pattern.fit(shared, patterns)
    per_group = len(members) // groups
    starts = range(0, len(members), per_group)
    order = np.concatenate([start + _chain(choice[start : start + per_group], len(patterns)) for start in starts])
    return members[order].reshape(-1)


def _chain(choice: np.ndarray, patterns: int) -> np.ndarray:
    """Order of the rows of choices (U, I) by length class, then by a greedy chain of likeness."""
    present = choice >= 0
    lengths = present.sum(axis=1)
    classes = lengths // max(1, int(lengths.max()) // _LENGTH_CLASSES)
    connections = (choice[:, :, None] == np.arange(patterns)).reshape(len(choice), -1).astype(np.float32)
    in_common = connections @ connections.T
    left = np.ones(len(choice), dtype=bool)
    order: list[int] = []
    for klass in sorted(set(classes.tolist()), reverse=True):
        candidates = np.flatnonzero(classes == klass)
        for _ in candidates:
            open_ = candidates[left[candidates]]
            nearest = open_[in_common[order[-1], open_].argmax()] if order else open_[0]
            left[nearest] = False
            order.append(int(nearest))
    return np.array(order, dtype=np.int64)
