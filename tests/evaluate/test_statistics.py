"""Intervals and tests against their definitions."""

from math import comb, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcc.evaluate.statistics import chance_of_difference, share_of

NORMAL = 1.959963984540054
"""97.5 % of the normal distribution lie below."""


@given(st.integers(1, 3000), st.floats(0, 1))
def test_wilsons_interval(count: int, part: float) -> None:
    right = round(part * count)
    found = share_of(right, count)
    share, z = right / count, NORMAL
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z * sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    assert found.low == pytest.approx(max(0, middle - reach), abs=1e-9)
    assert found.high == pytest.approx(min(1, middle + reach), abs=1e-9)
    assert found.low <= found.share <= found.high


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemars_test_counts_all_that_is_no_more_likely(first: int, second: int) -> None:
    differ = first + second
    rarer = [comb(differ, k) for k in range(differ + 1) if comb(differ, k) <= comb(differ, first)]
    assert chance_of_difference(first, second) == pytest.approx(sum(rarer) / 2**differ)
