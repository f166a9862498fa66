"""n of every m neighbouring input channels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcc.errors import PccError
from pcc.sparsity.n_of_m import NofM
from pcc.training.recipe import parse_structures
from tests.sparsity.weights import nonzero_weight, weights


@given(
    weight=weights(st.integers(1, 3), st.integers(1, 11), (2, 1)),
    kept=st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 4), (4, 8)]),
)
def test_the_largest_of_each_group_stay(weight: np.ndarray, kept: tuple[int, int]) -> None:
    n, m = kept
    cut = NofM(n, m).project(weight)
    assert np.array_equal(cut[cut != 0], weight[cut != 0])
    for start in range(0, weight.shape[1], m):  # the last group may have fewer channels
        all_of_group, left = (np.abs(each[:, start : start + m]) for each in (weight, cut))
        assert ((left > 0).sum(axis=1) <= n).all()
        largest = np.sort(all_of_group, axis=1)[:, ::-1][:, :n]
        np.testing.assert_array_equal(left.sum(axis=1, dtype=np.float64), largest.sum(axis=1, dtype=np.float64))
    assert np.array_equal(NofM(n, m).project(cut), cut)
    assert np.array_equal(NofM.unpack(NofM(n, m).pack(cut)), cut)


def test_ties_go_to_the_first_channels() -> None:
    assert NofM(2, 4).project(np.ones((1, 6), dtype=np.float32)).tolist() == [[1, 1, 0, 0, 1, 1]]


def test_detection() -> None:
    assert NofM.detect(NofM(2, 4).project(nonzero_weight(0, 8, 16, 3, 3))) == NofM(2, 4)
    assert NofM.detect(np.zeros((4, 8), dtype=np.float32)) == "every weight is zero"
    assert NofM.detect(nonzero_weight(1, 4, 8)) != NofM(2, 4)


def test_in_a_recipe() -> None:
    assert parse_structures({"@linear": {"n-of-m": {"n": 1, "m": 4}}}) == {"@linear": NofM(1, 4)}
    assert parse_structures({"@linear": {"n-of-m": {}}}) == {"@linear": NofM(2, 4)}


def test_wrong_use() -> None:
    with pytest.raises(PccError, match="5 of 4 weights"):
        NofM(5, 4)
    with pytest.raises(PccError, match="4 of 4 neighbouring weights are not zero: more than 2"):
        NofM(2, 4).pack(nonzero_weight(0, 1, 4))
