"""The solver: the least loss of all plans under the budget, against every plan there is."""

import ctypes
from collections.abc import Callable
from itertools import product
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcc.compression import plan
from pcc.compression.options import KNOWN, STEEPER, Database, LayerOptions, Option, Plan, filters_left
from pcc.compression.plan import GAP, OutOfReach, loss_of, solve
from pcc.compression.times import Times, Timing
from pcc.compression.wish import Wish, chosen_wish
from pcc.errors import PccError

HALF = {"kernels": {"rate": 2.0}}


def option(cost: float, error: float = 0.0) -> Option:
    return Option(
        structure=HALF if error else None, error=error, cost=cost, family="f", macs=round(cost), bytes=round(cost) * 4
    )


def layer(name: str, dense: float, *others: tuple[float, float], sensitivity: float = 1.0) -> LayerOptions:
    """``others`` are costs and errors."""
    return LayerOptions(
        name=name, options=(option(dense), *(option(*other) for other in others)), sensitivity=sensitivity
    )


def taking(dense: float, channels: float, error: float, feeder: str) -> Option:
    """An option that takes filters from the layer in front."""
    return option(dense * channels, error).model_copy(update={"channels": channels, "feeders": (feeder,)})


def price(_: LayerOptions, option: Option, left: float) -> float:
    return option.cost * left


costs, errors = st.floats(1, 100), st.floats(0.001, 1)
channels = st.dictionaries(st.sampled_from([0.25, 0.5, 0.75]), errors, max_size=2)
layers = st.lists(
    st.tuples(costs, st.lists(st.tuples(costs, errors), max_size=2), errors, channels), min_size=1, max_size=4
)


@given(layers, st.floats(0.2, 1.5))
def test_no_plan_is_better(
    drawn: list[tuple[float, list[tuple[float, float]], float, dict[float, float]]], share: float
) -> None:
    database: Database = {}
    for number, (dense, others, sensitivity, fewer) in enumerate(drawn):
        found = layer(str(number), dense, *others, sensitivity=sensitivity)
        more = [taking(dense, *each, str(number - 1)) for each in fewer.items()] if number else []
        database[str(number)] = found.model_copy(update={"options": (*found.options, *more)})
    budget = share * sum(found.dense.cost for found in database.values())
    plans = [
        dict(zip(database, options, strict=True))
        for options in product(*(found.options for found in database.values()))
    ]
    affordable = [plan for plan in plans if consistent(plan) and total(plan) <= budget * (1 - 1e-6)]
    if not affordable:
        return
    plan = solve(database, price, budget)
    assert consistent(plan)
    assert total(plan) <= budget * (1 + 1e-5)
    assert loss_of(database, plan) <= min(loss_of(database, plan) for plan in affordable) * (1 + GAP) + 1e-5


def consistent(plan: Plan) -> bool:
    """Whether filters that share connections stay together."""
    left = filters_left(plan)
    return all(left[name] == 1 or each.structure is None or each.feeders for name, each in plan.items())


def total(plan: Plan) -> float:
    left = filters_left(plan)
    return sum(each.cost * left[name] for name, each in plan.items())


def test_a_budget_that_no_plan_keeps() -> None:
    with pytest.raises(OutOfReach) as raised:
        solve({"a": layer("a", 10, (4, 0.1))}, price, 3)
    assert raised.value.least == 4


def test_what_is_measured_corrects_what_is_predicted() -> None:
    database: Database = {"a": layer("a", 10, (5, 0.1)), "b": layer("b", 10, (5, 0.2))}
    dense = Timing(layers={"a": 1.0, "b": 1.0, "pool": 0.5})
    times = Times.of_dense(database, dense)
    assert times.of_dense_network(database) == pytest.approx(2.5)
    plan = Wish("faster", 1.2).plan(database, times)
    assert [option.structure for option in plan.values()] == [HALF, None]
    assert times.of_plan(database, plan) == pytest.approx(2.0)
    with pytest.raises(PccError, match=r"it comes to 1\.67 times as fast"):  # the pool takes what it took
        Wish("faster", 2).plan(database, times)
    slow = Timing(layers={"a": 0.8, "b": 1.0, "pool": 0.5})  # 0.5 was expected of a
    corrected = times.corrected(database, plan, dense, slow)
    assert corrected.of_plan(database, plan) == pytest.approx(2.3)
    both = Wish("faster", 1.15).plan(database, corrected)  # b is of the same kernel family: 0.8, too
    assert [option.structure for option in both.values()] == [HALF, HALF]
    assert corrected.of_plan(database, both) == pytest.approx(2.1)
    busy = Timing(layers={name: 2 * seconds for name, seconds in slow.layers.items()})
    twice = Timing(layers={name: 2 * seconds for name, seconds in dense.layers.items()})
    assert times.corrected(database, plan, twice, busy).of_plan(database, plan) == pytest.approx(2.3)


def test_filters_that_another_layer_takes() -> None:
    database: Database = {"a": layer("a", 10, (2, 0.9)), "b": layer("b", 10)}
    database["b"] = database["b"].model_copy(
        update={"options": (database["b"].dense, taking(10, 0.5, 0.1, "a"), taking(10, 0.25, 0.2, "a"))}
    )
    dense = Timing(layers={"a": 1.0, "b": 1.0})
    times = Times.of_dense(database, dense)
    plan = Wish("faster", 2).plan(database, times)
    assert plan["b"].channels == 0.5
    assert times.of_plan(database, plan) == pytest.approx(1.0)
    corrected = times.corrected(database, plan, dense, Timing(layers={"a": 0.8, "b": 0.5}))
    assert corrected.of_plan(database, plan) == pytest.approx(1.3)
    assert Wish("macs", 0.5).plan(database, times) == plan
    with pytest.raises(PccError, match="it comes to 4 times as fast"):
        Wish("faster", 5).plan(database, times)


def test_wishes() -> None:
    database: Database = {"a": layer("a", 10, (5, 0.1)), "b": layer("b", 10, (2, 0.2))}
    times = Times.of_dense(database, None)
    assert sum(each.macs for each in Wish("macs", 0.6).plan(database, times).values()) == 12
    assert sum(each.bytes for each in Wish("size", 0.8).plan(database, times).values()) == 60
    with pytest.raises(PccError, match=r"--faster 3 is out of reach: .* it comes to 2.86 times as fast"):
        Wish("faster", 3).plan(database, times)
    with pytest.raises(PccError, match=r"--macs 0.1 is out of reach: .* it comes to --macs 0.35"):
        Wish("macs", 0.1).plan(database, times)
    assert chosen_wish(keep=0.99) == Wish("keep", 0.99)
    for wrong in ({}, {"faster": 2.0, "macs": 0.5}, {"faster": 1.0}, {"faster": float("nan")}, {"size": 1.0}):
        with pytest.raises(PccError, match="give"):
            chosen_wish(**wrong)


def test_what_is_lost_adds_up_and_beyond_what_is_known_counts_more() -> None:
    few, more, most = (option(1, error).lost for error in (0.1, KNOWN, 1 - (1 - KNOWN) ** 2))
    assert few == pytest.approx(-log(0.9))
    assert more == pytest.approx(-log(1 - KNOWN))
    assert most == pytest.approx((1 + STEEPER) * more)


def test_the_solver_prints_nothing(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """HiGHS has lines of its own, through the C library's buffer."""
    c_library = ctypes.CDLL(None)
    milp: Callable[..., object] = plan.milp

    def talking(*args: object, **options: object) -> object:
        c_library.puts(b"for developers")
        return milp(*args, **options)

    monkeypatch.setattr(plan, "milp", talking)
    c_library.puts(b"before")
    database = {"a": layer("a", 10, (5, 0.1))}
    assert solve(database, price, 6)["a"].error == 0.1
    c_library.puts(b"after")
    c_library.fflush(None)
    assert capfd.readouterr().out == "before\nafter\n"
