"""Judging A against B by pairs: what disturbs the machine for a while disturbs both halves of a pair, so ratios are
steadier than times."""

import math
from collections.abc import Sequence
from statistics import median

from pydantic import BaseModel


class Ratio(BaseModel):
    """How many times longer one takes than the other, judged by paired times."""

    median: float
    low: float
    high: float
    """The two ends of an interval that has the true median inside in 95 % of all runs; the range where there are too
    few pairs for that."""
    pairs: int

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f}, {self.pairs} pairs)"


def paired_ratio(slower: Sequence[float], faster: Sequence[float]) -> Ratio:
    """The ratio of pairs of times; the first of each pair is the numerator."""
    ratios = sorted(slow / fast for slow, fast in zip(slower, faster, strict=True))
    outside = outer(len(ratios))
    return Ratio(median=median(ratios), low=ratios[outside], high=ratios[-1 - outside], pairs=len(ratios))


def outer(count: int, level: float = 0.95) -> int:
    """How many of ``count`` sorted values lie outside the median's interval at each end.

    The true median lies below the k-th smallest value as often as a fair coin falls heads fewer than k times in
    ``count`` throws: no assumption about how times are distributed.
    """
    tail, outside = 0.0, 0
    for heads in range(count // 2):
        tail += math.comb(count, heads) / 2**count
        if tail > (1 - level) / 2:
            break
        outside = heads
    return outside
