from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcc.errors import PccError
from pcc.sparsity.budget import budget
from pcc.sparsity.window import Window
from tests.sparsity.weights import distance, nonzero_weight, weights

RATES = st.sampled_from([1.0, 1.5, 2.25, 3.0, 9.0, 100.0])


@settings(max_examples=40)
@given(weight=weights(st.integers(1, 2), st.integers(1, 3), (2, 2)), rate=RATES, kernels=RATES)
def test_nearest_against_brute_force(weight: np.ndarray, rate: float, kernels: float) -> None:
    """The filters are apart, so each is tried alone: every choice of connections, and every window of each."""
    structure = Window(rate, kernels)
    found = structure.project(weight)
    for filter_, cut in zip(weight, found, strict=True):
        best = min(
            distance(filter_, cut_by(filter_, channels, windows))
            for channels in combinations(range(len(filter_)), budget(len(filter_), kernels))
            for windows in product(combinations(range(4), budget(4, rate)), repeat=len(channels))
        )
        assert distance(filter_, cut) == pytest.approx(best, abs=1e-12)
        assert np.count_nonzero(cut, axis=(1, 2)).max() <= budget(4, rate)
        assert np.count_nonzero(np.count_nonzero(cut, axis=(1, 2))) <= budget(len(filter_), kernels)
    assert np.array_equal(structure.project(found), found)


def cut_by(filter_: np.ndarray, channels: tuple[int, ...], windows: tuple[tuple[int, ...], ...]) -> np.ndarray:
    cut = np.zeros((len(filter_), 4), dtype=np.float32)
    for channel, window in zip(channels, windows, strict=True):
        cut[channel, list(window)] = filter_[channel].ravel()[list(window)]
    return cut.reshape(filter_.shape)


@settings(max_examples=20)
@given(weight=weights(st.integers(1, 3), st.integers(1, 3), (3, 2)), rate=RATES, kernels=RATES)
def test_round_trip_is_bit_for_bit(weight: np.ndarray, rate: float, kernels: float) -> None:
    structure = Window(rate, kernels)
    cut = structure.project(weight) + np.float32(0)
    packed = structure.pack(cut)
    assert np.array_equal(Window.unpack(packed).view(np.int32), cut.view(np.int32))


def test_budget_is_exact_in_every_connection_and_filter() -> None:
    structure = Window(2.25, 2)
    cut = structure.project(nonzero_weight(0, 6, 10, 3, 3))
    of_connection = np.count_nonzero(cut, axis=(2, 3))
    assert set(of_connection.ravel().tolist()) == {0, 4}
    assert (np.count_nonzero(of_connection, axis=1) == 5).all()
    count = structure.count(cut)
    assert (count.weights, count.kept, count.data_bytes) == (540, 120, 480)
    assert count.index_bytes <= 69


def test_ties_go_to_lower_taps() -> None:
    assert np.flatnonzero(Window(2.25).project(np.ones((1, 1, 3, 3), dtype=np.float32))).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("shape", [(4, 3, 1, 1), (5, 7)])
def test_one_tap_stays(shape: tuple[int, ...]) -> None:
    weight = nonzero_weight(1, *shape)
    assert np.array_equal(Window(9).project(weight), weight)


def test_detect() -> None:
    weight = nonzero_weight(2, 4, 3, 5, 5)
    assert Window.detect(weight) == "some connections use all 25 taps"
    assert Window.detect(0 * weight) == "every weight is zero"
    cut = Window(2.3, 1.5).project(weight)
    found = Window.detect(cut)
    assert isinstance(found, Window)
    assert np.array_equal(found.project(cut), cut)
    assert budget(25, found.rate) == budget(25, 2.3) == 11
    assert budget(3, found.kernels) == 2


def test_wrong_use() -> None:
    with pytest.raises(PccError, match=r"pruning rate of 0\.5"):
        Window(2, 0.5)
    with pytest.raises(PccError, match="a connection has 9 weights that are not zero: more than the 4 of 9"):
        Window(2.25).pack(nonzero_weight(3, 2, 2, 3, 3))
    with pytest.raises(PccError, match="a filter has 2 connections that are not zero: more than the 1 of 2"):
        Window(1, 2).pack(nonzero_weight(3, 2, 2, 3, 3))
