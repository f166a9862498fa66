import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcc.sparsity import connectivity, joint, pattern
from pcc.sparsity.budget import budget
from tests.sparsity.weights import cut_connections, cut_to_patterns, cuts, distance, nonzero_weight, weights

TWO = np.array([[0, 1], [1, 2]], dtype=np.int32)


@settings(max_examples=60)
@given(
    weight=weights(st.just(2), st.integers(1, 3), (1, 3)),
    rate=st.sampled_from([1.0, 1.5, 2.0, 5.0]),
    scope=st.sampled_from(connectivity.SCOPES),
    share=st.sampled_from([1, 2]),
)
def test_nearest_against_brute_force(weight: np.ndarray, rate: float, scope: str, share: int):
    filters, inputs = weight.shape[:2]
    blocks = filters // share
    kept = budget(inputs if scope == "filter" else inputs * blocks, rate)
    best = min(
        distance(weight, pattern.apply(weight, TWO, np.repeat(choice, share, axis=0)))
        for choice in cuts(blocks, inputs, len(TWO), kept, per_group=scope == "filter")
    )
    consecutive = joint.project(weight, TWO, rate, scope=scope, share=share, order=np.arange(filters))
    assert distance(weight, consecutive.weight) == pytest.approx(best, abs=1e-9)


@settings(max_examples=40)
@given(
    weight=weights(st.sampled_from([4, 8]), st.integers(1, 4)),
    rate=st.sampled_from([1.0, 2.0, 3.6]),
    scope=st.sampled_from(connectivity.SCOPES),
    share=st.sampled_from([1, 2, 4]),
)
def test_idempotent_in_its_own_order(weight: np.ndarray, rate: float, scope: str, share: int):
    once = joint.project(weight, pattern.DESIGNED, rate, scope=scope, share=share)
    twice = joint.project(once.weight, pattern.DESIGNED, rate, scope=scope, share=share, order=once.order)
    assert np.array_equal(once.weight, twice.weight)


@settings(max_examples=40)
@given(
    weight=weights(st.sampled_from([2, 4]), st.integers(1, 5)),
    rate=st.sampled_from([1.0, 2.0, 3.6]),
    scope=st.sampled_from(connectivity.SCOPES),
)
def test_connectivity_after_patterns_is_the_joint_projection(weight: np.ndarray, rate: float, scope: str):
    after = cut_connections(cut_to_patterns(weight, pattern.DESIGNED), rate, scope=scope)
    assert np.array_equal(after, joint.project(weight, pattern.DESIGNED, rate, scope=scope).weight)


def test_connectivity_before_patterns_is_not():
    spread = np.full(9, 1.0)
    in_pattern = np.zeros(9)
    in_pattern[pattern.DESIGNED[0]] = 1.4
    weight = np.stack([spread, in_pattern]).reshape(1, 2, 3, 3).astype(np.float32)
    before = cut_to_patterns(cut_connections(weight, 2), pattern.DESIGNED)
    exact = joint.project(weight, pattern.DESIGNED, 2).weight
    assert before.any(axis=(2, 3)).tolist() == [[True, False]]
    assert exact.any(axis=(2, 3)).tolist() == [[False, True]]
    assert distance(weight, exact) < distance(weight, before)


@pytest.mark.parametrize("share", [1, 2, 4])
@pytest.mark.parametrize("scope", connectivity.SCOPES)
def test_exact_budget_and_sharing(share: int, scope: str):
    weight = nonzero_weight(7, 16, 20, 3, 3)
    found = joint.project(weight, pattern.DESIGNED, 3.6, scope=scope, share=share)
    blocks = 16 // share
    kept = budget(20, 3.6) * blocks if scope == "filter" else budget(20 * blocks, 3.6)
    assert np.count_nonzero(found.weight) == kept * share * 4
    assert (found.choice >= 0).sum() == kept * share
    together = found.choice[found.order].reshape(blocks, share, 20)
    assert (together == together[:, :1]).all()
    assert found.kept == pytest.approx(1 - distance(weight, found.weight) / distance(weight, 0 * weight))


def test_grouping_by_likeness_keeps_more_than_neighbours_do():
    rng = np.random.default_rng(3)
    kinds = rng.standard_normal((4, 32, 3, 3)) * rng.uniform(size=(4, 32, 1, 1)) ** 4
    weight = kinds[rng.permutation(np.repeat(np.arange(4), 4))].astype(np.float32) * rng.uniform(
        0.8, 1.2, (16, 32, 1, 1)
    ).astype(np.float32)
    free = joint.project(weight, pattern.DESIGNED, 3.6).kept
    neighbours = joint.project(weight, pattern.DESIGNED, 3.6, share=4, order=np.arange(16)).kept
    alike = joint.project(weight, pattern.DESIGNED, 3.6, share=4).kept
    assert neighbours < 0.9 * free
    assert alike > 0.97 * free


def test_a_weight_of_zeros_stays():
    found = joint.project(np.zeros((4, 4, 3, 3), dtype=np.float32), pattern.DESIGNED, 3.6, share=4)
    assert not found.weight.any()
    assert found.kept == 1
