from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcc.errors import PccError
from pcc.sparsity import connectivity
from pcc.sparsity.budget import budget
from tests.sparsity.weights import cut_connections, distance, nonzero_weight, weights

RATES = st.sampled_from([1.0, 1.5, 2.0, 3.6, 100.0])


@pytest.mark.parametrize(
    ("total", "rate", "kept"),
    [(100, 3.6, 28), (10, 4, 3), (9, 1, 9), (3, 100, 1), (1, 3.6, 1), (4096, 3.6, 1138), (7, 1.0001, 7)],
)
def test_budget(total: int, rate: float, kept: int):
    assert budget(total, rate) == kept


@pytest.mark.parametrize("rate", [0.5, 0, -1, float("nan"), float("inf")])
def test_rates_that_make_no_sense(rate: float):
    with pytest.raises(PccError, match="pruning rate"):
        budget(10, rate)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 1000),
    filters=st.sampled_from([4, 8, 12]),
    inputs=st.integers(1, 9),
    rate=RATES,
    scope=st.sampled_from(connectivity.SCOPES),
    share=st.sampled_from([1, 2, 4]),
)
def test_the_budget_is_exact(seed: int, filters: int, inputs: int, rate: float, scope: str, share: int):
    weight = nonzero_weight(seed, filters, inputs, 3, 3)
    projected = cut_connections(weight, rate, scope=scope, share=share)
    blocks = filters // share
    per_block = budget(inputs, rate) * blocks if scope == "filter" else budget(inputs * blocks, rate)
    assert np.count_nonzero(projected.any(axis=(2, 3))) == per_block * share
    if scope == "filter":
        assert len(set(projected.any(axis=(2, 3)).sum(axis=1))) == 1
    connections = projected.any(axis=(2, 3)).reshape(blocks, share, inputs)
    assert (connections == connections[:, :1]).all()


@settings(max_examples=60)
@given(
    weight=weights(st.sampled_from([2, 4]), st.integers(1, 3), (1, 2)),
    rate=RATES,
    scope=st.sampled_from(connectivity.SCOPES),
    share=st.sampled_from([1, 2]),
)
def test_projection_is_nearest_and_idempotent(weight: np.ndarray, rate: float, scope: str, share: int):
    filters, inputs = weight.shape[:2]
    blocks = filters // share
    projected = cut_connections(weight, rate, scope=scope, share=share)
    worth = np.square(weight.astype(np.float64)).sum(axis=(2, 3)).reshape(blocks, share, inputs).sum(axis=1)
    rows = worth if scope == "filter" else worth.reshape(1, -1)
    kept = budget(rows.shape[1], rate)
    best = sum(max(sum(row[list(some)]) for some in combinations(range(len(row)), kept)) for row in rows)
    assert distance(weight, projected) == pytest.approx(worth.sum() - best, abs=1e-9)
    assert np.array_equal(cut_connections(projected, rate, scope=scope, share=share), projected)


def test_ties_go_to_the_lower_index_and_never_over_budget():
    projected = cut_connections(np.ones((2, 4, 3, 3), dtype=np.float32), 8 / 3)
    assert projected.any(axis=(2, 3)).tolist() == [[True, True, True, False], [False] * 4]
    balanced = cut_connections(np.ones((2, 4, 3, 3), dtype=np.float32), 2, scope="filter")
    assert balanced.any(axis=(2, 3)).tolist() == [[True, True, False, False]] * 2


def test_1x1_connectivity_is_unstructured_pruning():
    weight = nonzero_weight(0, 8, 8, 1, 1)
    projected = cut_connections(weight, 4)
    threshold = np.sort(np.abs(weight).ravel())[-16]
    assert np.array_equal(projected, np.where(np.abs(weight) >= threshold, weight, 0))


def test_grouped_convolutions_share_inside_their_groups():
    weight = nonzero_weight(0, 6, 4, 3, 3)
    with pytest.raises(PccError, match="3 filters in each convolution group do not divide into groups of 2"):
        cut_connections(weight, 2, share=2, groups=2)
    order = connectivity.similar_order(np.square(nonzero_weight(1, 8, 4, 3, 3)).sum(axis=(2, 3)), 2, groups=2)
    assert sorted(order[:4]) == [0, 1, 2, 3]
    assert sorted(order[4:]) == [4, 5, 6, 7]


def test_similar_order_finds_the_hidden_groups():
    rng = np.random.default_rng(0)
    kinds = rng.uniform(size=(5, 40)) ** 4
    shuffled = rng.permutation(np.repeat(np.arange(5), 4))
    features = kinds[shuffled] * rng.uniform(0.9, 1.1, (20, 40))
    order = connectivity.similar_order(features, 4)
    assert sorted(order) == list(range(20))
    assert all(len(set(kinds_of_group)) == 1 for kinds_of_group in shuffled[order].reshape(5, 4))


def test_sharing_follows_the_order():
    weight = nonzero_weight(2, 4, 6, 3, 3)
    order = np.array([2, 0, 3, 1])
    connections: np.ndarray = (cut_connections(weight, 2, share=2, order=order) != 0).any(axis=(2, 3))
    assert (connections[2] == connections[0]).all()
    assert (connections[3] == connections[1]).all()
    assert connections.sum() == 12


def test_wrong_scope_and_share_are_named():
    weight = nonzero_weight(0, 4, 4, 3, 3)
    with pytest.raises(PccError, match="unknown scope 'net'"):
        cut_connections(weight, 2, scope="net")
    with pytest.raises(PccError, match="groups of 1, 2, 4, not 3"):
        cut_connections(weight, 2, share=3)
