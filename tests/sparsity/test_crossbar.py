from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pcc.errors import PccError
from pcc.sparsity.budget import budget
from pcc.sparsity.conductance import Conductance
from pcc.sparsity.crossbar import LINES, Crossbar
from pcc.sparsity.scale import TOLERANCE
from tests.sparsity.weights import distance, nonzero_weight, weights


def lines_of(weight: np.ndarray, groups: int, lines: str, size: tuple[int, int]) -> list[list[int]]:
    """The flat places of each line, written down cell by cell."""
    filters, inputs = len(weight) // groups, int(np.prod(weight.shape[1:]))
    found: dict[tuple[int, ...], list[int]] = {}
    for group, filter_, row in product(range(groups), range(filters), range(inputs)):
        line = (group, filter_ // size[1], row) if lines == "rows" else (group, filter_, row // size[0])
        found.setdefault(line, []).append((group * filters + filter_) * inputs + row)
    return [found[line] for line in sorted(found)]


@settings(max_examples=40)
@given(
    weight=weights(st.sampled_from([2, 4]), st.integers(1, 2), (1, 2)),
    rate=st.sampled_from([1.0, 1.5, 3.0]),
    lines=st.sampled_from(LINES),
    size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    groups=st.sampled_from([1, 2]),
)
def test_nearest_idempotent_and_packed(weight: np.ndarray, rate: float, lines: str, size: tuple[int, int], groups: int):
    structure = Crossbar(rate, lines, size)
    norms = [
        float(np.square(weight.ravel()[line], dtype=np.float64).sum()) for line in lines_of(weight, groups, lines, size)
    ]
    kept = budget(len(norms), rate)
    best = (
        sum(norms) - max(sum(chosen) for chosen in combinations(norms, kept))
        if len(norms) <= 12
        else sum(sorted(norms)[:-kept])
    )
    once = structure.project(weight, groups)
    assert once.dtype == np.float32
    assert distance(weight, once) == pytest.approx(best, abs=1e-9)
    assert np.array_equal(structure.project(once, groups), once)
    assert (Crossbar.unpack(structure.pack(once, groups)) + 0.0).tobytes() == (once + 0.0).tobytes()


@pytest.mark.parametrize("lines", LINES)
@pytest.mark.parametrize(
    ("shape", "groups"), [((150, 20, 3, 3), 1), ((300, 200), 1), ((64, 8, 5, 5), 4), ((40, 1, 3, 3), 40)]
)
def test_budget_and_detection_at_the_usual_size(lines: str, shape: tuple[int, ...], groups: int):
    weight = nonzero_weight(0, *shape)
    structure = Crossbar(4, lines)
    once = structure.project(weight, groups)
    of_lines = lines_of(weight, groups, lines, structure.size)
    live = [once.ravel()[line] for line in of_lines if once.ravel()[line].any()]
    assert len(live) == budget(len(of_lines), 4)
    assert all(line.all() for line in live)
    packed = structure.pack(once, groups)
    assert np.array_equal(packed.data["weight"], np.concatenate(live))
    found = Crossbar.detect(once, groups)
    assert isinstance(found, Crossbar)
    assert np.array_equal(found.project(once, groups), once)


few = hnp.arrays(
    np.float32, st.integers(1, 5), elements=st.integers(-3, 3).map(np.float32) | st.floats(-4, 4, width=32)
)


@settings(max_examples=40)
@given(weight=few, states=st.integers(2, 5))
def test_conductances_against_every_assignment(weight: np.ndarray, states: int):
    chosen = np.array(list(product(range(states), repeat=len(weight))))[1:].astype(np.float64)
    kept = np.square(chosen @ np.abs(weight).astype(np.float64)) / np.square(chosen).sum(axis=1)
    norm = float(np.square(weight, dtype=np.float64).sum())
    structure = Conductance(states)
    once = structure.project(weight)
    assert distance(weight, once) <= (norm - kept.max()) * (1 + TOLERANCE) ** 2 + 1e-9 * norm
    assert np.array_equal(structure.project(once), once)
    assert (Conductance.unpack(structure.pack(once)) + 0.0).tobytes() == (once + 0.0).tobytes()
    if once.any():
        found = Conductance.detect(once)
        assert isinstance(found, Conductance)
        assert found.states <= states
        assert np.array_equal(found.project(once), once)


def test_states_of_a_fixed_scale_and_their_range():
    weight = np.array([0, 0.2, -0.3, 0.74, 0.76, -9], dtype=np.float32)
    assert Conductance(3).nearest(weight, np.array(0.5, dtype=np.float32)).tolist() == [0, 0, -0.5, 0.5, 1, -1]
    assert Conductance.detect(np.array([0, 0.5, -1.5], dtype=np.float32)) == Conductance(4)


def test_nothing_to_gain_and_wrong_use_are_said():
    assert Crossbar.detect(nonzero_weight(0, 4, 4)) == "no line of a crossbar of 128 x 128 is all zero"
    assert Crossbar.detect(np.zeros((4, 4), dtype=np.float32)) == "every weight is zero"
    assert Conductance.detect(np.zeros((4, 4), dtype=np.float32)) == "every weight is zero"
    assert "equally spaced" in str(Conductance.detect(nonzero_weight(0, 30, 30)))
    with pytest.raises(PccError, match="rate"):
        Crossbar(0.5)
    with pytest.raises(PccError, match="'diagonals'"):
        Crossbar(2, "diagonals")
    with pytest.raises(PccError, match="no cells"):
        Crossbar(2, size=(0, 4))
    with pytest.raises(PccError, match="8 of 8 crossbar rows"):
        Crossbar(2, size=(2, 2)).pack(nonzero_weight(0, 4, 4))
    with pytest.raises(PccError, match="2 to 129"):
        Conductance(1)
    with pytest.raises(PccError, match="project them first"):
        Conductance(5).pack(nonzero_weight(0, 4, 4))
