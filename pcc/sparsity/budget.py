"""How many weights (connections, filters, blocks) a pruning rate leaves, and which: those of largest score."""

import math

import numpy as np

from pcc.errors import PccError


def budget(total: int, rate: float) -> int:
    """How many of ``total`` stay at a pruning rate of ``rate`` (3.6 keeps one in 3.6): rounded to the nearest, halves
    up, at least 1, at most all."""
    if not rate >= 1 or math.isinf(rate):
        raise PccError(
            f"a pruning rate of {rate:g} keeps nothing that makes sense: give the factor by which connections become "
            "fewer, 1 or more"
        )
    return min(total, max(1, math.floor(total / rate + 0.5)))


def largest(scores: np.ndarray, count: int) -> np.ndarray:
    """bool mask of the ``count`` largest entries of an array of any shape, ties by lower index. Linear in time: nothing
    is sorted."""
    flat = scores.ravel()
    if count >= flat.size:
        return np.ones(scores.shape, dtype=bool)
    if count <= 0:
        return np.zeros(scores.shape, dtype=bool)
    lowest = flat.min()
    above = flat[flat > lowest]  # of the many zeros of a pruned weight, which would slow the partition down
    least = np.partition(above, len(above) - count)[len(above) - count] if len(above) > count else lowest
    mask = flat > least
    mask[np.flatnonzero(flat == least)[: count - int(mask.sum())]] = True
    return mask.reshape(scores.shape)
