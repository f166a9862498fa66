from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pcc.errors import PccError
from pcc.sparsity.budget import budget, largest
from pcc.sparsity.places import pack_places, unpack_places
from pcc.sparsity.unstructured import Unstructured
from tests.sparsity.weights import distance, nonzero_weight, weights


@settings(max_examples=40)
@given(weight=weights(st.integers(1, 2), st.integers(1, 2), (1, 2)), rate=st.sampled_from([1.0, 1.5, 2.0, 4.0, 100.0]))
def test_nearest_against_brute_force(weight: np.ndarray, rate: float):
    found = Unstructured(rate).project(weight)
    kept = budget(weight.size, rate)
    best = min(
        distance(weight, np.where(np.isin(np.arange(weight.size), places).reshape(weight.shape), weight, 0))
        for places in combinations(range(weight.size), kept)
    )
    assert distance(weight, found) == pytest.approx(best, abs=1e-12)
    assert np.count_nonzero(found) <= kept
    assert np.array_equal(Unstructured(rate).project(found), found)


@settings(max_examples=40)
@given(
    scores=hnp.arrays(np.float64, st.integers(1, 20), elements=st.integers(-2, 2).map(float)), count=st.integers(0, 21)
)
def test_largest_takes_ties_by_index(scores: np.ndarray, count: int):
    expected = np.zeros(len(scores), dtype=bool)
    expected[np.argsort(-scores, kind="stable")[:count]] = True
    assert np.array_equal(largest(scores, count), expected)


@settings(max_examples=40)
@given(size=st.integers(1, 5000), kept=st.integers(0, 40), seed=st.integers(0, 99))
def test_places_come_back(size: int, kept: int, seed: int):
    mask = np.zeros(size, dtype=bool)
    mask[np.random.default_rng(seed).integers(0, size, kept)] = True
    assert np.array_equal(unpack_places(pack_places(mask), size), mask)


@pytest.mark.parametrize(
    ("every", "bits"), [(1, 1), (2, 1), (15, 4), (16, 5), (300, 9), (5000, 13), (65535, 16), (150_000, 16)]
)
def test_bits_follow_the_distances(every: int, bits: int):
    mask = np.zeros(10 * every, dtype=bool)
    mask[every - 1 :: every] = True
    packed = pack_places(mask)
    assert packed["bits"].tolist() == [bits]
    assert np.array_equal(unpack_places(packed, mask.size), mask)


def test_places_are_never_larger_than_the_bitmap():
    rng = np.random.default_rng(0)
    for share in (0, 0.001, 0.01, 0.1, 0.5, 0.9, 1):
        mask = rng.uniform(size=10_000) < share
        assert pack_places(mask)["distances"].nbytes <= 1250


def test_a_damaged_index_is_named():
    index = pack_places(np.ones(9, dtype=bool))
    with pytest.raises(PccError, match="reaches place 8 of 5"):
        unpack_places(index, 5)


def test_round_trip_is_bit_for_bit():
    weight = Unstructured(7.3).project(nonzero_weight(1, 20, 9, 5, 3))
    packed = Unstructured(7.3).pack(weight)
    assert np.array_equal(Unstructured.unpack(packed).view(np.int32), weight.view(np.int32))
    count = Unstructured(7.3).count(weight)
    assert count.kept == budget(weight.size, 7.3)
    assert count.data_bytes == 4 * count.kept
    assert count.index_bytes < weight.size / 8


@pytest.mark.parametrize("shape", [(10, 30), (3, 4, 5, 2)])
def test_detect(shape: tuple[int, ...]):
    weight = nonzero_weight(2, *shape)
    assert Unstructured.detect(weight) == "no weight is zero"
    assert Unstructured.detect(0 * weight) == "every weight is zero"
    cut = Unstructured(3.7).project(weight)
    found = Unstructured.detect(cut)
    assert isinstance(found, Unstructured)
    assert np.array_equal(found.project(cut), cut)
    assert budget(weight.size, found.rate) == np.count_nonzero(cut)
    assert np.array_equal(Unstructured.unpack(found.pack(cut)), cut)


def test_wrong_use():
    with pytest.raises(PccError, match=r"pruning rate of 0\.5"):
        Unstructured(0.5)
    with pytest.raises(PccError, match="10 of 10 weights are not zero: more than one in 2"):
        Unstructured(2).pack(nonzero_weight(3, 2, 5))


def test_a_large_layer():
    weight = np.random.default_rng(4).standard_normal((500, 860)).astype(np.float32)
    cut = Unstructured(71.2).project(weight)
    assert np.array_equal(Unstructured.unpack(Unstructured(71.2).pack(cut)), cut)
