from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcc.errors import PccError
from pcc.sparsity.budget import budget
from pcc.sparsity.centroids import Centroids
from pcc.sparsity.columns import Column
from pcc.sparsity.compose import Composition
from pcc.sparsity.conductance import Conductance
from pcc.sparsity.crossbar import Crossbar
from pcc.sparsity.filters import Channel, Filter
from pcc.sparsity.kernels import Kernels
from pcc.sparsity.levels import Binary, PowerOfTwo, Ternary, UniformLevels
from pcc.sparsity.structure import Structure
from pcc.sparsity.tetris import Tetris
from pcc.sparsity.unstructured import Unstructured
from pcc.sparsity.values import Values
from pcc.sparsity.zeros import Zeros
from tests.sparsity.weights import distance, nonzero_weight, weights

SYMMETRIC = [UniformLevels(1), UniformLevels(2), PowerOfTwo(2), Ternary(), Conductance(3), Binary(keep_zeros=True)]


def masks(zeros: Zeros, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Every mask of a budget on a tiny weight."""
    size = int(np.prod(shape))
    if isinstance(zeros, Unstructured):
        for places in combinations(range(size), budget(size, zeros.rate)):
            yield np.isin(np.arange(size), places).reshape(shape)
    if isinstance(zeros, Filter):
        for places in combinations(range(shape[0]), budget(shape[0], zeros.rate)):
            yield np.broadcast_to(np.isin(np.arange(shape[0]), places)[:, None, None, None], shape)
    if isinstance(zeros, Kernels):
        connections = shape[0] * shape[1]
        for places in combinations(range(connections), budget(connections, zeros.rate)):
            for tap in np.ndindex(*[shape[3]] * len(places)):
                mask = np.zeros((connections, shape[3]), dtype=bool)
                mask[list(places)] = True
                mask[list(places), list(tap)] = False
                yield mask.reshape(shape)


@settings(max_examples=40)
@given(
    weight=weights(st.integers(1, 2), st.integers(1, 2), (1, 2)),
    rate=st.sampled_from([1.0, 1.5, 2.0, 4.0]),
    values=st.sampled_from(SYMMETRIC),
)
def test_unstructured_with_symmetric_values_is_exact(weight: np.ndarray, rate: float, values: Values):
    """Over all masks that keep as many weights that are not zero and, for each, the best scale."""
    both = Composition((Unstructured(rate), values))
    assert both.exact
    full = min(budget(weight.size, rate), np.count_nonzero(weight))
    kept = [
        left
        for mask in masks(Unstructured(rate), weight.shape)
        if np.count_nonzero(left := np.where(mask, weight, np.float32(0))) == full
    ]
    best = min(distance(weight, values.project(left)) for left in kept)
    found = both.project(weight)
    assert distance(weight, found) <= best * 1.005 + 1e-6
    assert np.count_nonzero(found) <= budget(weight.size, rate)
    assert np.array_equal(both.project(found), found)


@settings(max_examples=40)
@given(
    weight=weights(st.just(2), st.integers(1, 2), (1, 3)),
    zeros=st.sampled_from([Unstructured(3), Filter(2), Kernels(((0, 1), (1, 2), (0, 2)), 2, kernel=(1, 3))]),
    pair=st.sampled_from(
        [(UniformLevels(2), 0.7), (PowerOfTwo(2), 1.5), (Ternary(), 1.1), (Centroids(3), [-1.5, 0.25, 2])]
    ),
)
def test_nearest_for_a_known_scale_is_exact(weight: np.ndarray, zeros: Zeros, pair: tuple[Values, object]):
    values, scale = pair[0], np.array(pair[1], dtype=np.float32)
    valued = values.nearest(weight, scale)
    best = min(distance(weight, np.where(mask, valued, np.float32(0))) for mask in masks(zeros, weight.shape))
    assert distance(weight, Composition((zeros, values)).nearest(weight, scale)) == pytest.approx(best, abs=1e-6)


ALL = [
    (Unstructured(4), Centroids(3)),
    (Kernels("designed", 2), UniformLevels(3)),
    (Kernels("designed", 2, share=2), Ternary()),
    (Kernels("designed", 2, share=4), Centroids(4)),
    (Filter(2), Binary("filter", keep_zeros=True)),
    (Channel(2), PowerOfTwo(3)),
    (Column(3), UniformLevels(2)),
    (Tetris(2, (2, 2)), UniformLevels(2)),
    (Crossbar(2, "rows", (4, 4)), Conductance(4)),
    (Filter(2), Unstructured(4)),
    (Column(2), Unstructured(4)),
    (Channel(2), Kernels("designed", 2)),
    (Filter(2), Channel(2), Kernels("designed", 2, share=2), UniformLevels(3)),
    (Filter(2), Unstructured(3), Centroids(4)),
]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("parts", ALL, ids=lambda parts: "+".join(part.name for part in parts))
def test_every_pair(parts: tuple[Structure, ...], groups: int):
    both = Composition(parts)
    weight = nonzero_weight(1, 16, 12, 3, 3)
    found = both.project(weight, groups)
    assert np.array_equal(both.project(found, groups), found)
    packed = both.pack(found, groups)
    assert np.array_equal(Composition.unpack(packed), found)
    assert not both.exact
    count = both.count(found, groups)
    assert 0 < count.kept < weight.size
    assert packed.data_bytes + packed.index_bytes == count.data_bytes + count.index_bytes
    in_sequence = weight
    for part in parts:
        if part.values_only:
            in_sequence = part.project(in_sequence, groups)
            assert distance(weight, found) <= distance(weight, in_sequence) * (1 + 1e-9) or len(parts) > 2
        else:
            in_sequence = part.project(in_sequence, groups)


@settings(max_examples=40)
@given(weight=weights(st.just(4), st.integers(1, 4)), parts=st.sampled_from(ALL))
def test_idempotent_and_packed_bit_for_bit(weight: np.ndarray, parts: tuple[Structure, ...]):
    both = Composition(parts)
    once = both.project(weight)
    assert np.array_equal(both.project(once), once)
    assert np.array_equal(Composition.unpack(both.pack(once)), once)


@pytest.mark.parametrize("seed", range(20))
def test_slices_that_lose_everything_do_not_move_the_others(seed: int):
    rng = np.random.default_rng(seed)
    weight = (rng.integers(-3, 4, (12, 3, 3, 3)) * (rng.random((12, 3, 1, 1)) < 0.4)).astype(np.float32)
    both = Composition((Filter(2), Channel(2), Kernels("designed", 2, share=2), UniformLevels(3)))
    once = both.project(weight)
    assert np.array_equal(both.project(once), once)
    assert np.array_equal(Composition.unpack(both.pack(once)), once)


def test_rates_multiply():
    weight = nonzero_weight(2, 20, 10, 3, 3)
    cut = Composition((Filter(2), Channel(2), Unstructured(3))).project(weight)
    assert cut.any(axis=(1, 2, 3)).sum() == 10
    assert cut.any(axis=(0, 2, 3)).sum() == 5
    assert np.count_nonzero(cut) == budget(10 * 5 * 9, 3)


def test_joint_zeros_see_what_values_do():
    """A connection whose weights the levels meet well is worth more than a slightly larger one that they do not."""
    structure = Composition((Kernels(rate=2), UniformLevels(1)))
    weight = np.array([[1.0, 1.0], [1.6, 0.05], [1.0, 1.0], [1.6, 0.05]], dtype=np.float32).reshape(2, 2, 1, 2)
    found = structure.project(weight)
    assert found.any(axis=(2, 3)).tolist() == [[True, False], [True, False]]
    assert distance(weight, found) < distance(weight, UniformLevels(1).project(Kernels(rate=2).project(weight)))


def test_the_index_holds_places_only_once():
    weight = Composition((Unstructured(10), UniformLevels(3))).project(nonzero_weight(3, 50, 20, 3, 3))
    both = Composition((Unstructured(10), UniformLevels(3))).count(weight)
    alone = UniformLevels(3).count(weight)
    assert both.data_bytes == alone.data_bytes
    assert abs(both.index_bytes - alone.index_bytes) <= 4
    assert 4 * both.weights / both.data_bytes == pytest.approx(10 * 32 / 3, rel=0.03)


def test_detect_finds_the_smallest_pair():
    both = Composition((Kernels("designed", 3.6), UniformLevels(4)))
    weight = both.project(nonzero_weight(4, 16, 32, 3, 3))
    found = Composition.detect(weight)
    assert isinstance(found, Composition)
    assert found.parts[1] == UniformLevels(4)
    assert np.array_equal(Composition.unpack(found.pack(weight)), weight)
    assert isinstance(Composition.detect(nonzero_weight(4, 16, 32, 3, 3)), str)


def test_mined_patterns_are_settled():
    weight = nonzero_weight(5, 8, 8, 3, 3)
    settled = Composition((Kernels(4), UniformLevels(3))).settle([weight])
    assert np.count_nonzero(settled.project(weight)) == 8 * 8 * 4


def test_zeros_stay_zeros():
    zeros = np.zeros((8, 4, 3, 3), dtype=np.float32)
    for parts in ALL:
        both = Composition(parts)
        assert not both.project(zeros).any()
        assert not Composition.unpack(both.pack(both.project(zeros))).any()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((Unstructured(2),), "of 1 structures"),
        ((UniformLevels(2), Unstructured(2)), "levels restricts values, so it comes last"),
        ((Unstructured(2), Filter(2)), "after unstructured only values may follow"),
        ((Filter(2), UniformLevels(2), Ternary()), "levels restricts values"),
        ((Unstructured(2), Binary()), "give binary keep_zeros"),
        ((Unstructured(2), Binary("filter", keep_zeros=True)), "no filters to give scales to"),
    ],
)
def test_what_does_not_compose(parts: tuple[Structure, ...], message: str):
    with pytest.raises(PccError, match=message):
        Composition(parts)


def test_a_known_scale_needs_scores_and_values():
    with pytest.raises(PccError, match="filter and unstructured have no projection for a known scale"):
        Composition((Filter(2), Unstructured(2))).nearest(nonzero_weight(0, 2, 2), np.ones(()))
