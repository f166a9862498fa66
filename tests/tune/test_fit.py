"""Costs fitted to trials that nobody measured."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcc.codegen.family import Candidate
from pcc.codegen.machine import Work
from pcc.tune.fit import fit, non_negative_least_squares, rank
from pcc.tune.layers import Case, Pruned
from pcc.tune.trials import Trial, vector

LAYERS = tuple(Pruned(Case(8, size, 8)) for size in (7, 14, 28))


def _trials(rng: np.random.Generator, count: int) -> list[Trial]:
    return [
        Trial(layer, "family", Candidate(number, Work(*rng.uniform(0, 1e6, len(fields(Work))))))
        for layer in LAYERS
        for number in range(count)
    ]


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_the_solution_is_optimal(seed: int, columns: int) -> None:
    """The conditions of Karush, Kuhn and Tucker: the gradient is zero where x is positive, and does not point into the
    feasible set where x is zero."""
    rng = np.random.default_rng(seed)
    matrix, wanted = rng.standard_normal((6, columns)), rng.standard_normal(6)
    x = non_negative_least_squares(matrix, wanted)
    gradient = matrix.T @ (matrix @ x - wanted)
    assert (x >= 0).all()
    assert (gradient > -1e-9).all()
    assert np.abs(gradient[x > 0]).max(initial=0) < 1e-9


def test_costs_are_found_again() -> None:
    rng = np.random.default_rng(0)
    costs, trials = Work(*rng.uniform(0.1, 10, len(fields(Work)))), _trials(rng, 8)
    found = fit(trials, lambda trial: float(vector(trial.candidate.work) @ vector(costs)), Work())
    np.testing.assert_allclose(vector(found), vector(costs), rtol=1e-6)
    pulled = fit(trials, lambda trial: float(vector(trial.candidate.work) @ vector(costs)), costs * 1.5)
    assert (vector(pulled) >= vector(costs) * 0.5).all()
    assert not np.allclose(vector(pulled), vector(costs), rtol=1e-6)


def test_what_the_layers_do_not_tell_stays_as_it_was() -> None:
    trials = [Trial(LAYERS[0], "family", Candidate(count, Work(fma=count, loads=count**2))) for count in range(1, 5)]
    found = fit(
        trials, lambda trial: 2 * trial.candidate.work.fma + 3 * trial.candidate.work.loads, Work(fma=2, stores=7)
    )
    assert (found.fma, found.loads, found.stores, found.lines) == (
        pytest.approx(2),
        pytest.approx(3),
        pytest.approx(7),
        0,
    )


def test_a_choice_is_between_good_schedules() -> None:
    """Two costs cannot say what three schedules take: the slow one may be wrong."""
    works = (Work(fma=1, loads=1), Work(fma=2), Work(fma=3, loads=3))
    taken = dict(zip(works, (2.0, 2.1, 30.0), strict=True))
    found = fit(
        [Trial(LAYERS[0], "family", Candidate(place, work)) for place, work in enumerate(works)],
        lambda trial: taken[trial.candidate.work],
        Work(),
    )
    assert found.fma + found.loads == pytest.approx(2, rel=0.1)


def test_rankings() -> None:
    works = (Work(fma=1, loads=3), Work(fma=2, loads=2), Work(fma=3, loads=1))
    trials = [Trial(layer, "family", Candidate(place, work)) for layer in LAYERS for place, work in enumerate(works)]

    def cost(trial: Trial) -> float:
        return trial.candidate.work.fma * (4 if trial.layer is LAYERS[2] else 1)

    right, wrong = rank(trials, cost, Work(fma=1)), rank(trials, cost, Work(loads=1))
    assert (right.loss, right.worst_loss, right.correlation) == (pytest.approx(1), 1, pytest.approx(1))
    assert (wrong.loss, wrong.worst_loss, wrong.correlation) == (pytest.approx(3), 3, pytest.approx(-1))
    assert wrong.worst_layer == str(LAYERS[0])
