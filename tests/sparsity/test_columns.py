from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcc.errors import PccError
from pcc.sparsity.budget import budget
from pcc.sparsity.columns import Column
from tests.sparsity.weights import distance, nonzero_weight, weights


@settings(max_examples=40)
@given(
    weight=weights(st.sampled_from([2, 4]), st.integers(1, 2), (1, 2)),
    rate=st.sampled_from([1.0, 1.5, 2.0, 9.0]),
    groups=st.sampled_from([1, 2]),
)
def test_nearest_against_brute_force(weight: np.ndarray, rate: float, groups: int):
    columns = weight[0].size
    of_group = [
        np.isin(np.arange(columns), columns_kept)
        for columns_kept in combinations(range(columns), budget(columns, rate))
    ]
    flat = weight.reshape(len(weight), columns)
    best = min(
        distance(flat, np.where(np.repeat(columns_kept, len(weight) // groups, axis=0), flat, 0))
        for columns_kept in product(of_group, repeat=groups)
    )
    found = Column(rate).project(weight, groups)
    assert distance(weight, found) == pytest.approx(best, abs=1e-9)
    assert np.array_equal(Column(rate).project(found, groups), found)


@pytest.mark.parametrize(
    ("shape", "groups", "kept"),
    [
        ((8, 5, 3, 3), 1, 15),
        ((8, 5, 3, 3), 4, 15),
        ((8, 1, 3, 3), 8, 3),
        ((8, 1, 1, 1), 8, 1),
        ((7, 10), 1, 3),
        ((6, 11, 1, 1), 2, 4),
    ],
)
def test_packed_is_a_smaller_matrix(shape: tuple[int, ...], groups: int, kept: int):
    weight = Column(3).project(nonzero_weight(0, *shape), groups)
    packed = Column(3).pack(weight, groups)
    assert packed.data["weight"].shape == (shape[0] if shape[1:] != (1, 1, 1) else 3, kept)
    assert packed.data["weight"].all()
    assert np.array_equal(Column.unpack(packed), weight)
    for row, thin in zip(weight.reshape(shape[0], -1), packed.data["weight"], strict=False):
        assert shape[1:] == (1, 1, 1) or row[row != 0].tolist() == thin.tolist()
    found = Column.detect(weight, groups)
    assert isinstance(found, Column)
    assert np.array_equal(found.project(weight, groups), weight)


def test_a_column_is_one_place_of_all_filters():
    cut = Column(4).project(nonzero_weight(1, 6, 4, 5, 5))
    used = cut.reshape(6, -1) != 0
    assert used.all(axis=0).sum() == 25
    assert used.any(axis=0).sum() == 25


def test_reasons_and_wrong_use():
    weight = nonzero_weight(2, 4, 2, 2, 2)
    assert Column.detect(weight) == "no column is all zero"
    assert Column.detect(0 * weight) == "every weight is zero"
    with pytest.raises(PccError, match="more columns than one in 2"):
        Column(2).pack(weight)
