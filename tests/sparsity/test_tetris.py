from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcc.errors import PccError
from pcc.sparsity.budget import budget
from pcc.sparsity.reorder import Orders, search
from pcc.sparsity.tetris import Tetris
from tests.sparsity.weights import distance, nonzero_weight, weights

SHAPES = [
    ((8, 6), 1, (2, 3)),
    ((7, 5, 3, 3), 1, (2, 2)),
    ((12, 4, 1, 1), 2, (3, 2)),
    ((12, 3, 3, 3), 3, (2, 2)),
    ((6, 1, 3, 3), 6, (4, 4)),
    ((5, 3, 5, 5), 1, (16, 16)),
]


def in_blocks(weight: np.ndarray, groups: int, block: tuple[int, int]) -> np.ndarray:
    """Which blocks of a weight have something in them, bool (groups, down, across), one after the other."""
    connections = np.abs(weight).reshape(groups, len(weight) // groups, weight.shape[1], -1).sum(axis=3)
    down, across = (range(0, size, step) for size, step in zip(connections.shape[1:], block, strict=True))
    return np.array(
        [
            [[connections[g, r : r + block[0], c : c + block[1]].any() for c in across] for r in down]
            for g in range(groups)
        ]
    )


@settings(max_examples=40)
@given(
    weight=weights(st.integers(1, 4), st.integers(1, 5), (1, 2)), rate=st.sampled_from([1.0, 1.5, 3.0]), data=st.data()
)
def test_fixed_orders_give_the_nearest(weight: np.ndarray, rate: float, data: st.DataObject):
    filters = data.draw(st.permutations(range(weight.shape[0])))
    channels = data.draw(st.permutations(range(weight.shape[1])))
    structure = Tetris(rate, (2, 2), tuple(filters), tuple(channels))
    ordered = weight[filters][:, channels]
    blocks = [(row, column) for row in range(0, len(filters), 2) for column in range(0, len(channels), 2)]
    norms = [float(np.square(ordered[r : r + 2, c : c + 2], dtype=np.float64).sum()) for r, c in blocks]
    best = min(sum(norms) - sum(chosen) for chosen in combinations(norms, budget(len(blocks), rate)))
    once = structure.project(weight)
    assert distance(weight, once) == pytest.approx(best, abs=1e-9)
    assert np.array_equal(structure.project(once), once)
    assert (Tetris.unpack(structure.pack(once)) + 0.0).tobytes() == (once + 0.0).tobytes()


@pytest.mark.parametrize(("shape", "groups", "block"), SHAPES)
@pytest.mark.parametrize("rate", [1.0, 2.0, 3.5])
def test_budget_idempotence_packing_detection(shape: tuple[int, ...], groups: int, block: tuple[int, int], rate: float):
    weight = nonzero_weight(3, *shape)
    structure = Tetris(rate, block)
    once = structure.project(weight, groups)
    assert once.dtype == np.float32
    assert np.array_equal(structure.project(once, groups), once)
    fixed = structure.arranged(weight, groups)
    assert np.array_equal(fixed.project(weight, groups), once)
    packed = structure.pack(once, groups)
    assert Tetris.unpack(packed).tobytes() == once.tobytes()
    assert packed.data["weight"].size == np.count_nonzero(once)
    if groups == 1:
        filters, channels = structure.orders(once)
        blocks = in_blocks(once[filters][:, channels], 1, block)
        assert blocks.sum() == budget(blocks.size, rate)
    found = Tetris.detect(once, groups)
    if isinstance(found, str):
        assert once.all() or "no filters" in found
    else:
        assert np.array_equal(found.project(once, groups), once)


def test_shuffled_blocks_are_found_again_with_a_few_accidental_zeros():
    rng = np.random.default_rng(1)
    blocks = np.repeat(np.repeat(rng.permutation(np.arange(64) < 16).reshape(8, 8), 4, axis=0), 4, axis=1)
    weight = np.where(blocks, nonzero_weight(2, 32, 32), np.float32(0))[rng.permutation(32)][:, rng.permutation(32)]
    assert np.array_equal(Tetris(4, (4, 4)).project(weight), weight)
    assert Tetris.detect(weight) == Tetris(4, (4, 4))
    weight[rng.random(weight.shape) < 0.02] = 0
    assert np.array_equal(Tetris(4, (4, 4)).project(weight), weight)


def test_search_is_near_the_best_orders_of_tiny_weights():
    """All orders of 4 filters and 4 channels, blocks of 2 x 2, one in two stays."""
    orders = [
        list(order) for order in permutations(range(4)) if order[0] < order[1] and order[2] < order[3] and order[0] == 0
    ]
    found, best, unordered = 0.0, 0.0, 0.0
    for seed in range(20):
        weight = np.random.default_rng(seed).standard_normal((4, 4)).astype(np.float32)
        distances = [
            distance(weight, Tetris(2, (2, 2), tuple(rows), tuple(columns)).project(weight))
            for rows in orders
            for columns in orders
        ]
        ours = distance(weight, Tetris(2, (2, 2)).project(weight))
        assert min(distances) - 1e-6 <= ours <= distances[0] + 1e-6
        found, best, unordered = found + ours, best + min(distances), unordered + distances[0]
    assert found - best < 0.3 * (unordered - best)


def test_order_pays_and_a_swap_is_the_papers():
    rng = np.random.default_rng(0)
    weight = nonzero_weight(0, 64, 64) * rng.lognormal(0, 0.7, (64, 1)) * rng.lognormal(0, 0.7, (1, 64))
    norm = distance(weight, 0 * weight)
    plain = Tetris(4, (8, 8), tuple(range(64)), tuple(range(64))).project(weight.astype(np.float32))
    ordered = Tetris(4, (8, 8)).project(weight.astype(np.float32))
    assert 1 - distance(weight, ordered) / norm > 1.3 * (1 - distance(weight, plain) / norm)
    scores = np.array([[[9.0, 1, 0, 0], [0, 0, 3, 1], [2, 1, 0, 0], [0, 0, 9, 1]]])
    orders = search(scores, (2, 2), 2, Orders.plain(1, 4, 4), columns=False)
    assert {frozenset(pair) for pair in orders.rows.reshape(2, 2).tolist()} == {frozenset({0, 2}), frozenset({1, 3})}
    assert orders.columns.tolist() == [[0, 1, 2, 3]]


def test_one_fixed_order_is_kept_and_the_other_searched():
    weight = nonzero_weight(4, 8, 8)
    channels = tuple(np.random.default_rng(0).permutation(8).tolist())
    structure = Tetris(2, (2, 2), channels=channels)
    filters, kept = structure.orders(weight)
    assert kept.tolist() == list(channels)
    assert in_blocks(structure.project(weight)[filters][:, kept], 1, (2, 2)).sum() == 8


def test_nothing_to_gain_and_wrong_use_are_said():
    assert Tetris.detect(nonzero_weight(0, 4, 4)) == "no connection is all zero"
    assert Tetris.detect(np.zeros((4, 4), dtype=np.float32)) == "every weight is zero"
    assert "no filters have the same channels" in str(Tetris.detect(np.tril(nonzero_weight(0, 4, 4))))
    with pytest.raises(PccError, match="rate"):
        Tetris(0.5)
    with pytest.raises(PccError, match="not \\(filters, channels\\)"):
        Tetris(2, (0, 4))
    with pytest.raises(PccError, match="order of 3 filters"):
        Tetris(2, (2, 2), filters=(0, 1, 2)).project(nonzero_weight(0, 4, 4))
    with pytest.raises(PccError, match="each of 4 once"):
        Tetris(2, (2, 2), channels=(0, 1, 2, 2)).project(nonzero_weight(0, 4, 4))
    with pytest.raises(PccError, match="16 of 16 blocks"):
        Tetris(2, (1, 1)).pack(nonzero_weight(0, 4, 4))
