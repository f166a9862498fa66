from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcc.errors import PccError
from pcc.sparsity.budget import budget
from pcc.sparsity.filters import Channel, Filter
from tests.sparsity.weights import distance, nonzero_weight, weights


def best_filters(weight: np.ndarray, kept: int) -> float:
    chosen = combinations(range(len(weight)), kept)
    return min(
        distance(weight, np.where(np.isin(np.arange(len(weight)), choice)[:, None, None, None], weight, 0))
        for choice in chosen
    )


@settings(max_examples=30)
@given(weight=weights(st.integers(1, 5), st.integers(1, 2), (1, 2)), rate=st.sampled_from([1.0, 1.5, 2.0, 9.0]))
def test_nearest_filters_against_brute_force(weight: np.ndarray, rate: float):
    found = Filter(rate).project(weight)
    assert distance(weight, found) == pytest.approx(best_filters(weight, budget(len(weight), rate)), abs=1e-9)
    assert np.array_equal(Filter(rate).project(found), found)


@settings(max_examples=30)
@given(
    weight=weights(st.just(4), st.integers(1, 4), (1, 2)),
    rate=st.sampled_from([1.0, 1.5, 2.0, 9.0]),
    groups=st.sampled_from([1, 2]),
)
def test_nearest_channels_against_brute_force(weight: np.ndarray, rate: float, groups: int):
    """Each group of filters chooses its own channels, except where it has one: then groups compete."""
    inputs, per_group = weight.shape[1], 4 // groups
    found = Channel(rate).project(weight, groups)
    if inputs == 1:
        options = [
            np.isin(np.arange(groups)[:, None], choice) for choice in combinations(range(groups), budget(groups, rate))
        ]
    else:
        of_group = [np.isin(np.arange(inputs), choice) for choice in combinations(range(inputs), budget(inputs, rate))]
        options = [np.array(choice) for choice in product(of_group, repeat=groups)]
    best = min(
        distance(weight, np.where(np.repeat(choice, per_group, axis=0)[:, :, None, None], weight, 0))
        for choice in options
    )
    assert distance(weight, found) == pytest.approx(best, abs=1e-9)
    assert np.array_equal(Channel(rate).project(found, groups), found)


def test_equal_norms_stay_by_index():
    assert Filter(2).project(np.ones((4, 3), dtype=np.float32)).any(axis=1).tolist() == [True, True, False, False]
    assert Channel(3).project(np.ones((4, 3), dtype=np.float32)).any(axis=0).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("rate", "multiple", "kept"), [(3, 1, 7), (3, 4, 8), (3, 16, 16), (3, 32, 20), (1, 8, 20), (100, 1, 1)]
)
def test_multiples_of_hardware_round_up(rate: float, multiple: int, kept: int):
    weight = nonzero_weight(0, 20, 20, 3, 3)
    assert Filter(rate, multiple).project(weight).any(axis=(1, 2, 3)).sum() == kept
    assert Channel(rate, multiple).project(weight).any(axis=(0, 2, 3)).sum() == kept


def test_groups_keep_the_same_number_of_filters():
    weight = nonzero_weight(1, 12, 5, 3, 3) * np.arange(1, 13, dtype=np.float32)[:, None, None, None]
    kept = Filter(3).project(weight, groups=3).any(axis=(1, 2, 3))
    assert kept.reshape(3, 4).sum(axis=1).tolist() == [1, 1, 1]
    depthwise = nonzero_weight(1, 12, 1, 3, 3) * (8 ** np.arange(12, dtype=np.float32))[:, None, None, None]
    for structure in (Filter(3), Channel(3)):
        assert np.flatnonzero(structure.project(depthwise, groups=12)).min() >= 8 * 9


@pytest.mark.parametrize(
    ("kind", "shape", "groups", "thin"),
    [
        (Filter, (12, 6, 3, 3), 1, (4, 6, 3, 3)),
        (Filter, (12, 6, 3, 3), 2, (4, 6, 3, 3)),
        (Filter, (12, 1, 3, 5), 12, (4, 1, 3, 5)),
        (Filter, (13, 7), 1, (4, 7)),
        (Channel, (12, 6, 3, 3), 1, (12, 2, 3, 3)),
        (Channel, (12, 6, 3, 3), 3, (12, 2, 3, 3)),
        (Channel, (24, 1, 3, 3), 12, (8, 1, 3, 3)),
        (Channel, (5, 9), 1, (5, 3)),
        (Channel, (5, 9, 1, 1), 1, (5, 3, 1, 1)),
    ],
)
def test_packed_is_a_thin_layer(
    kind: type[Filter | Channel], shape: tuple[int, ...], groups: int, thin: tuple[int, ...]
):
    weight = kind(3).project(nonzero_weight(2, *shape), groups)
    packed = kind(3).pack(weight, groups)
    assert packed.data["weight"].shape == thin
    assert packed.data["weight"].all()
    assert np.array_equal(kind.unpack(packed), weight)
    found = kind.detect(weight, groups)
    assert isinstance(found, kind)
    assert np.array_equal(found.project(weight, groups), weight)
    assert np.array_equal(kind.unpack(found.pack(weight, groups)), weight)


def test_thin_channels_of_groups_are_the_right_ones():
    weight = Channel(2).project(nonzero_weight(3, 4, 6, 1, 1), groups=2)
    packed = Channel(2).pack(weight, groups=2)
    for filter_ in range(4):
        assert packed.data["weight"][filter_].ravel().tolist() == [value for value in weight[filter_].ravel() if value]


@settings(max_examples=30)
@given(
    weight=weights(st.just(4), st.integers(1, 4), (1, 2)),
    groups=st.sampled_from([1, 2, 4]),
    kind=st.sampled_from([Filter, Channel]),
)
def test_round_trip_with_accidental_zeros(weight: np.ndarray, groups: int, kind: type[Filter | Channel]):
    cut = kind(2, 2).project(weight, groups)
    assert np.array_equal(kind.unpack(kind(2, 2).pack(cut, groups)), cut)


def test_reasons_and_wrong_use():
    weight = nonzero_weight(4, 4, 4)
    assert Filter.detect(weight) == "no filter is all zero"
    assert Channel.detect(0 * weight) == "every weight is zero"
    weight[0] = 0
    assert Filter.detect(weight, groups=2) == "in some convolution group no filter is all zero"
    with pytest.raises(PccError, match="more filters than one in 4 are not zero"):
        Filter(4).pack(weight)
    with pytest.raises(PccError, match="multiple of 0"):
        Channel(4, 0)
    with pytest.raises(PccError, match="pruning rate"):
        Filter(0.9)
