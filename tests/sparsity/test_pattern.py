from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcc.errors import PccError
from pcc.sparsity import pattern
from tests.sparsity.weights import connections_with, cut_to_patterns, distance, nonzero_weight, weights

PATTERN_SETS = {
    "designed": pattern.DESIGNED,
    "corners": np.array([[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]], dtype=np.int32),
}


def found_in(weight: np.ndarray) -> list[list[int]]:
    found = detected(weight)
    assert isinstance(found, np.ndarray), found
    return found.tolist()


def detected(weight: np.ndarray) -> np.ndarray | str:
    return pattern.detect_shapes(weight.reshape(-1, weight.shape[2] * weight.shape[3]) != 0)


def test_designed_patterns_are_the_t_shapes_of_pconv():
    drawn = ["".join(".#"[int(tap)] for tap in row) for row in pattern.masks(pattern.DESIGNED, 9)]
    assert drawn == [".#.###...", ".#.##..#.", "...###.#.", ".#..##.#."]


def test_mining_takes_the_most_frequent_natural_patterns():
    def connection(*taps: int) -> np.ndarray:
        values = np.full(9, 0.01, dtype=np.float32)
        values[list(taps)] = [1, -2, 3]
        return values

    corner, cross, edge = connection(0, 1, 3), connection(1, 3, 5), connection(6, 7, 8)
    weight = np.stack([cross, edge, corner, edge, cross, edge]).reshape(3, 2, 3, 3)
    assert pattern.mine([weight], 2).tolist() == [[4, 6, 7, 8], [1, 3, 4, 5]]
    assert pattern.mine([weight[:1], weight[1:]], 12).tolist() == [[4, 6, 7, 8], [1, 3, 4, 5], [0, 1, 3, 4]]


def test_mining_keeps_the_centre_even_when_it_is_the_smallest():
    weight = nonzero_weight(0, 64, 32, 3, 3)
    weight[:, :, 1, 1] = 1e-6
    mined = pattern.mine([weight], 12)
    assert mined.shape == (12, 4)
    assert (mined == 4).any(axis=1).all()


def test_mining_breaks_ties_by_reach_then_position_and_ignores_zero_connections():
    equal = np.ones((1, 1, 3, 3), dtype=np.float32)
    assert pattern.mine([np.concatenate([equal, np.zeros((5, 1, 3, 3), dtype=np.float32)])], 4).tolist() == [
        [0, 1, 2, 4]
    ]
    one_each = np.zeros((2, 1, 9), dtype=np.float32)
    one_each[0, 0, [5, 7, 8]] = 1
    one_each[1, 0, [0, 7, 8]] = 1
    assert pattern.mine([one_each.reshape(2, 1, 3, 3)], 2).tolist() == [
        [4, 5, 7, 8],
        [0, 4, 7, 8],
    ]  # a square reads fewer inputs


def test_mining_against_a_loop_over_connections():
    weight = np.random.default_rng(1).standard_normal((20, 30, 3, 3)).astype(np.float32)
    votes: dict[tuple[int, ...], int] = {}
    for connection in weight.reshape(-1, 9):
        others = sorted((tap for tap in range(9) if tap != 4), key=lambda tap: (-abs(connection[tap]), tap))[:3]
        natural = tuple(sorted([4, *others]))
        votes[natural] = votes.get(natural, 0) + 1
    # Ties may be in any order: only the numbers of votes are compared.
    expected = sorted(votes, key=lambda natural: (-votes[natural], natural))[:8]
    assert [votes[tuple(taps)] for taps in pattern.mine([weight], 8).tolist()] == [votes[taps] for taps in expected]


def test_mining_adjacent_patterns():
    """Every pattern is in one piece; each connection's vote goes to the one of largest norm, by brute force."""
    weight = np.random.default_rng(2).standard_normal((20, 30, 3, 3)).astype(np.float32)
    mined = pattern.mine([weight], 56, adjacent=True).tolist()
    pieces = [sorted((4, *others)) for others in combinations((0, 1, 2, 3, 5, 6, 7, 8), 3)]
    corners = {0: (1, 3), 2: (1, 5), 6: (3, 7), 8: (5, 7)}  # the others touch the centre
    pieces = [
        taps for taps in pieces if all(set(beside) & set(taps) for corner, beside in corners.items() if corner in taps)
    ]
    assert sorted(mined) == sorted(pieces)
    votes = Counter(
        max(range(len(pieces)), key=lambda i: float(np.sum(connection[pieces[i]].astype(np.float64) ** 2)))
        for connection in weight.reshape(-1, 9)
    )
    counts = [votes[pieces.index(taps)] for taps in mined]
    assert counts == sorted(counts, reverse=True)


def test_mining_needs_3x3_weights_with_something_in_them():
    with pytest.raises(PccError, match=r"not \(4, 4, 5, 5\)"):
        pattern.mine([np.ones((4, 4, 5, 5), dtype=np.float32)], 4)
    with pytest.raises(PccError, match="no pattern can be mined"):
        pattern.mine([np.zeros((4, 4, 3, 3), dtype=np.float32)], 4)


@pytest.mark.parametrize("name", PATTERN_SETS)
@settings(max_examples=40)
@given(weight=weights(st.integers(1, 3), st.integers(1, 3)))
def test_projection_is_nearest_and_idempotent(name: str, weight: np.ndarray):
    patterns = PATTERN_SETS[name]
    projected = cut_to_patterns(weight, patterns)
    masks = pattern.masks(patterns, 9).reshape(-1, 1, 1, 3, 3)
    brute = np.square((weight * ~masks).astype(np.float64)).sum(axis=(3, 4)).min(axis=0).sum()
    assert distance(weight, projected) == pytest.approx(brute, abs=1e-9)
    assert np.array_equal(cut_to_patterns(projected, patterns), projected)
    assert connections_with(projected, patterns) == np.count_nonzero(projected.any(axis=(2, 3)))


def test_projection_breaks_ties_by_the_first_pattern():
    projected = cut_to_patterns(np.ones((1, 1, 3, 3), dtype=np.float32), pattern.DESIGNED)
    assert np.flatnonzero(projected).tolist() == pattern.DESIGNED[0].tolist()


def test_projection_of_5x5_connections_onto_given_patterns():
    patterns = np.array([[2, 7, 12, 17, 22], [10, 11, 12, 13, 14]], dtype=np.int32)
    weight = nonzero_weight(3, 4, 5, 5, 5)
    projected = cut_to_patterns(weight, patterns)
    assert (np.count_nonzero(projected, axis=(2, 3)) == 5).all()
    assert found_in(projected) == patterns.tolist()


def test_detection_finds_the_patterns_it_projected_on():
    weight = nonzero_weight(4, 16, 16, 3, 3)
    assert found_in(cut_to_patterns(weight, pattern.DESIGNED)) == sorted(pattern.DESIGNED.tolist())


def test_detection_sees_through_accidental_zeros_and_missing_connections():
    projected = cut_to_patterns(nonzero_weight(5, 16, 16, 3, 3), pattern.DESIGNED)
    projected[3, 4] = 0
    projected[5, 6, 1, 1] = 0
    assert found_in(projected) == sorted(pattern.DESIGNED.tolist())
    assert connections_with(projected, pattern.DESIGNED) == 255


def test_detection_fills_up_patterns_of_different_sizes():
    weight = np.zeros((3, 1, 9), dtype=np.float32)
    weight[0, 0, [0, 1, 4, 5]] = 1
    weight[1, 0, [4, 8]] = 1
    weight[2, 0, [3, 4, 5]] = 1
    assert found_in(weight.reshape(3, 1, 3, 3)) == [[0, 1, 4, 5], [0, 3, 4, 5], [0, 4, 5, 8]]


@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (np.zeros((2, 2, 3, 3)), "every weight is zero"),
        (np.ones((2, 2, 3, 3)), "some connections use all 9 taps"),
        (np.ones((2, 2, 1, 1)), "some connections use all 1 taps"),
        (
            np.array([[tap in pair for tap in range(9)] for pair in combinations(range(9), 2)]).reshape(6, 6, 3, 3)
            * 1.0,
            "36 different shapes, more than 16",
        ),
    ],
)
def test_detection_says_why_there_are_no_patterns(weight: np.ndarray, reason: str):
    found = detected(weight)
    assert isinstance(found, str)
    assert reason in found


def test_detection_of_connections_with_more_than_64_taps():
    weight = np.zeros((4, 2, 81), dtype=np.float32)
    weight[:2, :, [0, 40, 80]] = 1
    weight[2:, :, [0, 41, 80]] = 1
    assert found_in(weight.reshape(4, 2, 9, 9)) == [[0, 40, 80], [0, 41, 80]]


def test_pattern_sets_from_lists():
    assert pattern.pattern_set([[4, 1], [5, 4], [4], [4, 1]], 9).tolist() == [[1, 4], [4, 5]]
    with pytest.raises(PccError, match=r"positions 0\.\.8"):
        pattern.pattern_set([[4, 9]], 9)


def test_a_connection_outside_every_pattern_is_named():
    weight = np.zeros((2, 3, 3, 3), dtype=np.float32)
    weight[1, 2, 0, 0] = weight[1, 2, 2, 2] = 1
    with pytest.raises(PccError, match=r"filter 1, channel 2, with taps \[0, 8\]"):
        connections_with(weight, pattern.DESIGNED)
