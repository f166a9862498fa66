"""Paired ratios."""

import random

from tools.bench_peers.ratios import outer, paired_ratio


def test_pairs_cancel_what_disturbs_both() -> None:
    noise = [1.0, 3.0, 1.5, 9.0, 2.0, 1.1, 4.0]
    ratio = paired_ratio([2 * time for time in noise], noise)
    assert (ratio.median, ratio.low, ratio.high, ratio.pairs) == (2.0, 2.0, 2.0, 7)


def test_the_interval_leaves_out_what_the_binomial_allows() -> None:
    assert [outer(count) for count in (1, 2, 5, 6, 8, 9, 12, 18)] == [0, 0, 0, 0, 0, 1, 2, 4]
    assert paired_ratio([1, 2, 3, 4, 5, 6, 7, 8, 100], [1] * 9).high == 8


def test_the_interval_has_the_median_inside() -> None:
    generator = random.Random(0)
    inside = 0
    for _ in range(1000):
        ratio = paired_ratio([generator.lognormvariate(0, 1) for _ in range(15)], [1.0] * 15)
        inside += ratio.low <= 1 <= ratio.high
        assert ratio.low <= ratio.median <= ratio.high
    assert inside > 940
