from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcc.errors import PccError
from pcc.sparsity import connectivity, joint, pattern
from pcc.sparsity.budget import budget
from pcc.sparsity.kernels import Kernels
from tests.sparsity.weights import cuts, distance, nonzero_weight, weights

TWO = ((0, 1), (1, 2))


@settings(max_examples=40)
@given(
    weight=weights(st.just(2), st.integers(1, 3), (1, 3)),
    rate=st.sampled_from([1.0, 1.5, 2.0, 5.0]),
    scope=st.sampled_from(connectivity.SCOPES),
    share=st.sampled_from([1, 2]),
)
def test_nearest_against_brute_force(weight: np.ndarray, rate: float, scope: str, share: int):
    """Two filters have one grouping in twos, so the projection is exact there too."""
    structure = Kernels(TWO, rate, scope, share, (1, 3))
    blocks, inputs = 2 // share, weight.shape[1]
    kept = budget(inputs if scope == "filter" else inputs * blocks, rate)
    best = min(
        distance(weight, pattern.apply(weight, np.array(TWO), np.repeat(choice, share, axis=0)))
        for choice in cuts(blocks, inputs, len(TWO), kept, per_group=scope == "filter")
    )
    assert distance(weight, structure.project(weight)) == pytest.approx(best, abs=1e-9)


@settings(max_examples=40)
@given(
    weight=weights(st.sampled_from([4, 8]), st.integers(1, 4)),
    patterns=st.sampled_from([None, "designed"]),
    rate=st.sampled_from([1.0, 2.0, 3.6]),
    scope=st.sampled_from(connectivity.SCOPES),
    share=st.sampled_from([1, 2, 4]),
)
def test_idempotent_and_packed_bit_for_bit(
    weight: np.ndarray, patterns: str | None, rate: float, scope: str, share: int
):
    structure = Kernels(patterns, rate, scope, share)
    once = structure.project(weight)
    assert np.array_equal(structure.project(once), once)
    assert np.array_equal(Kernels.unpack(structure.pack(once)), once)
    assert ((once == weight) | (once == 0)).all()


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    shuffle=st.booleans(),
    share=st.sampled_from([2, 4]),
    groups=st.sampled_from([1, 2]),
    rate=st.sampled_from([1.0, 3.6]),
)
def test_a_grouping_stays_once_it_is_cut(seed: int, shuffle: bool, share: int, groups: int, rate: float):
    structure = Kernels("designed", rate, share=share)
    weight = nonzero_weight(seed, 16, 12, 3, 3)
    cut = structure.project(weight, groups)
    nearest = joint.project(weight, pattern.DESIGNED, rate, share=share, groups=groups).weight
    assert np.array_equal(cut, nearest)
    trained = cut * np.random.default_rng(seed).uniform(0.5, 2, cut.shape).astype(np.float32)
    if shuffle and groups == 1:
        trained = trained[np.random.default_rng(seed).permutation(16)]
    assert np.array_equal(structure.project(trained, groups), trained)


@pytest.mark.parametrize("shape", [(16, 20, 3, 3), (16, 20, 5, 5), (16, 20, 1, 1), (16, 20)])
@pytest.mark.parametrize("scope", connectivity.SCOPES)
@pytest.mark.parametrize("share", [1, 4])
def test_exact_budget_of_connections(shape: tuple[int, ...], scope: str, share: int):
    cut = Kernels(rate=3.6, scope=scope, share=share).project(nonzero_weight(7, *shape))
    kept = budget(20, 3.6) * 16 if scope == "filter" else budget(20 * 16 // share, 3.6) * share
    assert np.count_nonzero(cut.reshape(16, 20, -1).any(axis=2)) == kept
    assert np.count_nonzero(cut) == kept * (cut.size // 320)
    packed = Kernels(rate=3.6, scope=scope, share=share).pack(cut)
    assert packed.data_bytes == 4 * np.count_nonzero(cut)
    assert np.array_equal(Kernels.unpack(packed), cut)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    "structure",
    [
        Kernels("designed"),
        Kernels("designed", 3.6),
        Kernels("designed", 3.6, "filter", 2),
        Kernels(None, 2.5, "filter"),
        Kernels(None, 3, "layer", 4),
    ],
)
def test_what_was_projected_is_found(structure: Kernels, groups: int):
    cut = structure.project(nonzero_weight(3, 32, 24, 3, 3), groups)
    found = Kernels.detect(cut, groups)
    assert isinstance(found, Kernels)
    assert (found.scope, found.share) == (structure.scope, structure.share)
    assert found.patterns == (
        None if structure.patterns is None else tuple(sorted(map(tuple, pattern.DESIGNED.tolist())))
    )
    assert found.rate == pytest.approx(structure.rate, rel=0.1)
    assert np.array_equal(found.project(cut, groups), cut)
    assert np.array_equal(Kernels.unpack(found.pack(cut, groups)), cut)


def test_mined_patterns_are_settled_over_layers():
    layers = [nonzero_weight(seed, 8, 8, 3, 3) for seed in range(3)]
    settled = Kernels(8, 2).settle([*layers, nonzero_weight(4, 8, 8, 1, 1), nonzero_weight(5, 8, 8)])
    assert settled == replace(Kernels(8, 2), patterns=tuple(map(tuple, pattern.mine(layers, 8).tolist())))
    assert settled.settle(layers) is settled
    assert np.count_nonzero(settled.project(layers[0])) == 32 * 4
    with pytest.raises(PccError, match="the 8 patterns are not mined yet"):
        Kernels(8).project(layers[0])


def test_keep_takes_any_scores():
    scores = np.zeros((1, 2, 3, 3))
    scores[0, 0, 0, 0], scores[0, 1, 1, 1] = 5, -1
    kept = Kernels("designed", 2).keep(scores)
    assert kept[0, 0].sum() == 4
    assert not kept[0, 1].any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patterns": "desinged"}, "unknown patterns 'desinged'"),
        ({"patterns": 3}, "3 patterns: mine 4 to 12"),
        ({"patterns": ((0, 9),)}, r"positions 0\.\.8"),
        ({"patterns": "designed", "kernel": (5, 5)}, "for 3x3 connections"),
        ({"rate": 0.5}, "pruning rate"),
        ({"scope": "row"}, "unknown scope 'row'"),
        ({"share": 3}, "groups of 1, 2, 4, not 3"),
    ],
)
def test_wrong_fields(fields: dict[str, object], message: str):
    with pytest.raises(PccError, match=message):
        Kernels(**fields)  # pyright: ignore[reportArgumentType]


def test_weights_that_do_not_fit():
    structure = Kernels("designed", 3.6)
    assert structure.fits(nonzero_weight(0, 4, 4, 3, 3))
    for weight, size in ((nonzero_weight(0, 4, 4, 5, 5), "5x5"), (nonzero_weight(0, 4, 4), "1x1")):
        assert not structure.fits(weight)
        with pytest.raises(PccError, match=f"the patterns are for 3x3 connections, these are {size}"):
            structure.project(weight)
    assert not Kernels(rate=2, share=4).fits(nonzero_weight(0, 6, 4, 3, 3))
    with pytest.raises(PccError, match="6 filters do not divide into groups of 4"):
        Kernels(rate=2, share=4).project(nonzero_weight(0, 6, 4, 3, 3))
    for order in ((0, 1), (0, 0, 2, 3), (1, 2, 3, 4)):
        with pytest.raises(PccError, match="the order does not name each of 4 filters once"):
            Kernels(rate=2, order=order).project(nonzero_weight(0, 4, 4, 3, 3))
    assert not Kernels(rate=2, order=(2, 1, 0, 3)).fits(nonzero_weight(0, 4, 4, 3, 3), groups=2)
    with pytest.raises(PccError, match="project it first"):
        structure.pack(nonzero_weight(0, 4, 4, 3, 3))


def test_arranged_keeps_the_grouping_while_weights_move():
    random = np.random.default_rng(3)
    weight = random.normal(size=(16, 6, 3, 3)).astype(np.float32)
    structure = Kernels("designed", 2.0, share=4).arranged(weight)
    assert structure.order is not None
    assert np.array_equal(structure.project(weight), Kernels("designed", 2.0, share=4).project(weight))
    moved = structure.project(random.normal(size=weight.shape).astype(np.float32))
    of_group = (moved[list(structure.order)] != 0).reshape(4, 4, 6, 9)
    assert (of_group == of_group[:, :1]).all()
    assert np.count_nonzero(of_group[:, 0].any(axis=2)) == 12
    assert np.array_equal(structure.project(moved), moved)
    assert np.array_equal(Kernels.unpack(structure.pack(moved)), moved)
