"""Plans that are timed: what the next one is made for, and which of all is taken."""

from pathlib import Path

import pytest

from pcc.compression.options import Database, LayerOptions, Option, Plan
from pcc.compression.planner import CORRECTIONS, MOST_AIM, Chosen, Planner
from pcc.compression.times import Times, Timing
from pcc.compression.wish import Kind, Wish
from pcc.progress import quiet
from pcc.target import host_target

DENSE = Option(cost=10, family="f", macs=10, bytes=40)


class Asked(Wish):
    """Plans of these errors, whatever is asked for; what that was is noted."""

    errors: tuple[float, ...] = (0.1,) * (1 + CORRECTIONS)

    def plan(self, database: Database, times: Times, value: float | None = None) -> Plan:
        assert value is not None
        error = self.errors[len(aims)]
        aims.append(value)
        return {"a": DENSE.model_copy(update={"structure": {"kernels": {"rate": 2.0}}, "error": error})}


aims: list[float] = []


class Timed(Planner):
    """Compiles nothing."""

    def dense(self) -> Path:
        return Path("dense")

    def _pruned(self, plan: Plan) -> Path:
        return Path("pruned")


def planned(
    monkeypatch: pytest.MonkeyPatch,
    measured: list[float],
    errors: tuple[float, ...] = Asked.errors,
    kind: Kind = "faster",
    value: float | None = None,
) -> Chosen:
    """What comes of plans that turn out so many times as fast as the dense network; twice as fast is asked for."""
    aims.clear()
    monkeypatch.setattr(Asked, "errors", errors)

    def time_together(packages: list[Path]) -> list[Timing]:
        seconds = [1.0 if package.name == "dense" else 1 / measured[len(aims) - 1] for package in packages]
        return [Timing(layers={"a": each}) for each in seconds]

    monkeypatch.setattr("pcc.compression.planner.time_together", time_together)
    monkeypatch.setattr("pcc.compression.planner.executes_here", lambda target: True)
    database: Database = {"a": LayerOptions(name="a", options=(DENSE,), sensitivity=1.0)}
    planner = Timed(None, database, Asked(kind, 2.0), host_target(), Path(), quiet)  # type: ignore[arg-type]
    return planner.plan(value)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ([2.05], [2]),
        ([1.985], [2]),
        ([1.9, 2], [2, 2 * 2 / 1.9]),
        ([1.6, 1.9, 2], [2, 2 * MOST_AIM, 2 * MOST_AIM]),
        ([3, 2.5, 2.2, 2.1, 2.3], [2] * 5),  # never for less than the wish
        ([1.5] * 5, [2, *[2 * MOST_AIM] * 4]),
    ],
    ids=str,
)
def test_a_plan_that_misses_is_followed_by_another(
    monkeypatch: pytest.MonkeyPatch, measured: list[float], expected: list[float]
) -> None:
    chosen = planned(monkeypatch, measured)
    assert aims == pytest.approx(expected)
    assert [attempt.measured for attempt in chosen.attempts] == pytest.approx(measured)


def test_of_plans_that_are_fast_enough_the_one_of_least_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = (0.1, 0.4, 0.3, 0.35, 0.5)
    assert planned(monkeypatch, [1.5, 2.5, 2.2, 2.3, 2.4], errors).faster == pytest.approx(2.2)
    assert planned(monkeypatch, [1.5, 2.5, 2.2, 1.985], (0.1, 0.4, 0.3, 0.2)).faster == pytest.approx(1.985)
    assert planned(monkeypatch, [1.2, 1.6, 1.5, 1.3, 1.4], errors).faster == pytest.approx(1.6)  # none is
    assert planned(monkeypatch, [4, 3.5, 3.05], (0.1, 0.3, 0.2), "keep", 3.0).faster == pytest.approx(4)


@pytest.mark.parametrize("kind", ["macs", "size"])
def test_other_wishes_take_one_plan(monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    assert planned(monkeypatch, [1.1], kind=kind).faster == pytest.approx(1.1)
    assert aims == [2]
