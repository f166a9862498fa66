"""FKW: filter-kernel-weight storage of sparse convolution weights (PatDNN, Niu et al., ASPLOS 2020), for patterns of any size.

A pattern is the set of taps a kernel keeps. Pattern pruning keeps 4 of 9 taps in one of a few shapes; connectivity pruning alone is one pattern with
all taps; so one format serves both. Filters are stored in groups of ``group`` that share their list of (input channel, pattern): 1 is PatDNN's own.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FKW:
    """A packed weight. G = filters / group; K = kernels stored, one for each (filter group, input channel) kept; P patterns of E taps."""

    shape: tuple[int, int, int, int]
    """(O, I/groups, kh, kw) of the dense weight."""
    groups: int
    """The convolution's groups (not the filter groups)."""
    group: int
    """Filters that share channels and patterns: 1, 2 or 4; divides O (and O / groups)."""
    patterns: np.ndarray
    """int32 (P, E): taps of each pattern as row-major positions in kh*kw, ascending."""
    reorder: np.ndarray
    """int32 (O,): the original filter of each stored filter."""
    offset: np.ndarray
    """int32 (G + 1,): where each filter group's kernels start."""
    index: np.ndarray
    """int32 (K,): input channel of each kernel, absolute (0..C_in-1)."""
    stride: np.ndarray
    """int32 (G, P + 1): where each pattern's kernels start and end inside a filter group, counted from ``offset``."""
    weight: np.ndarray
    """fp32 (K, E, group): the kept weights; the filters of a group lie next to each other."""
