from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pcc.errors import PccError
from pcc.sparsity.centroids import BINS, Centroids, assign
from tests.sparsity.weights import distance, nonzero_weight, weights

few = hnp.arrays(
    np.float32, st.integers(1, 8), elements=st.integers(-3, 3).map(np.float32) | st.floats(-4, 4, width=32)
)


def least(values: np.ndarray, clusters: int) -> float:
    """The least squared distance of sorted values to cluster means, over every way to cut them."""
    cuts = combinations(range(1, len(values)), min(clusters, len(values)) - 1)
    parts = (np.split(values.astype(np.float64), cut) for cut in cuts)
    return min(sum(float(np.square(part - part.mean()).sum()) for part in split) for split in parts)


@settings(max_examples=40)
@given(weight=few, clusters=st.integers(1, 4))
def test_nearest_against_every_way_to_cut(weight: np.ndarray, clusters: int):
    values = np.sort(weight[weight != 0])
    best = least(values, clusters) if len(values) else 0
    assert distance(weight, Centroids(clusters).project(weight)) == pytest.approx(
        best, abs=1e-9 + 1e-6 * distance(weight, 0 * weight)
    )


@settings(max_examples=40)
@given(weight=weights(st.integers(1, 4), st.integers(1, 4)), clusters=st.integers(1, 20))
def test_idempotent_and_packed_bit_for_bit(weight: np.ndarray, clusters: int):
    structure = Centroids(clusters)
    once = structure.project(weight)
    assert once.dtype == np.float32
    assert not once[weight == 0].any()
    assert len(np.unique(once[once != 0])) <= clusters
    assert np.array_equal(structure.project(once), once)
    assert (Centroids.unpack(structure.pack(once)) + 0.0).tobytes() == (once + 0.0).tobytes()
    if once.any():
        found = Centroids.detect(once)
        assert isinstance(found, Centroids)
        assert found.clusters == len(np.unique(once[once != 0]))


@pytest.mark.parametrize("clusters", [3, 16, 64])
def test_many_weights_beat_random_starts(clusters: int):
    rng = np.random.default_rng(0)
    weight = rng.standard_t(4, 4 * BINS).astype(np.float32)
    found = distance(weight, Centroids(clusters).project(weight))
    for _ in range(5):
        centroids = np.sort(rng.choice(weight, clusters, replace=False))
        for _ in range(40):
            members = assign(weight, centroids)
            centroids = np.array([weight[members == number].mean() for number in range(clusters)], np.float32)
        assert found <= distance(weight, Centroids(clusters).nearest(weight, centroids)) * 1.001


def test_weights_go_to_the_nearest_centroid():
    weight = np.array([[0, 1, 2, 3], [-5, 0, 9, 2]], dtype=np.float32)
    centroids = np.array([-4, 1, 3, 100], dtype=np.float32)
    assert assign(weight, centroids).tolist() == [[-1, 1, 1, 2], [0, -1, 2, 1]]
    assert Centroids(4).nearest(weight, centroids).tolist() == [[0, 1, 1, 3], [-4, 0, 3, 1]]


def test_codes_take_the_bits_they_should():
    weight = nonzero_weight(2, 16, 8, 3, 3)
    structure = Centroids(6)
    count = structure.count(structure.project(weight))
    assert (count.index_bytes, count.data_bytes) == (0, 16 * 8 * 9 * 3 // 8 + 6 * 4 + 1)


def test_nothing_to_gain_and_wrong_use_are_said():
    assert Centroids.detect(np.zeros((2, 2), dtype=np.float32)) == "every weight is zero"
    assert Centroids.detect(nonzero_weight(1, 100, 100)) == "more than 256 different values"
    with pytest.raises(PccError, match="1 to 256"):
        Centroids(0)
    with pytest.raises(PccError, match="project them first"):
        Centroids(4).pack(nonzero_weight(1, 5, 5))
