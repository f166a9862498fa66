"""Who comes when, with engines that only say how long they took."""

from typing import Any

import numpy as np
import pytest

from tools.bench_peers.compare import Comparison, difference
from tools.bench_peers.machine import this_machine
from tools.bench_peers.process import EngineFailed
from tools.bench_peers.result import Timing


class Worker:
    """Notes when it is asked; fails when it is asked more than ``most`` times."""

    def __init__(self, name: str, asked: list[str], seconds: float, most: int) -> None:
        self.name, self.asked, self.seconds, self.most = name, asked, seconds, most

    def ask(self, **what: Any) -> dict[str, Any]:
        self.asked.append(self.name)
        if self.asked.count(self.name) > self.most:
            raise EngineFailed("it ended")
        return {"seconds": [self.seconds, 9 * self.seconds, self.seconds], "processor": 1.0}

    def close(self) -> None:
        self.asked.append(f"{self.name} closed")


def comparison(most: int = 99, **seconds: float) -> tuple[Comparison, list[str]]:
    """Engines by what they take, and who was asked so far."""
    found, asked = Comparison(this_machine()), list[str]()
    for name, taken in seconds.items():
        found.workers[name] = Worker(name, asked, taken, most)  # type: ignore[assignment]
        found.timings[name] = Timing(engine=name, title=name, version="1", dense=True, error=0.0)
    return found, asked


def test_rounds_start_with_different_engines() -> None:
    found, asked = comparison(a=1, b=2, c=3)
    for number in range(3):
        found.round(number)
    assert "".join(asked) == "abcbcacab"
    assert found.timings["b"].rounds == [[2, 18, 2]] * 3


def test_in_a_duel_each_comes_first_in_every_second_pair() -> None:
    found, asked = comparison(a=3, pcc=2)
    duel = found.duel("a", 4)
    assert asked == ["a", "pcc", "pcc", "a", "a", "pcc", "pcc", "a"]
    assert duel is not None
    assert (duel.engine, duel.ratio.median, duel.ratio.pairs) == ("a", 1.5, 4)


def test_an_engine_that_fails_takes_no_further_part() -> None:
    found, asked = comparison(most=1, a=3, pcc=2)
    assert found.duel("a", 4) is None
    assert asked == ["a", "pcc", "pcc", "pcc closed"]
    assert found.not_run == {"pcc": "it ended"}
    assert set(found.timings) == {"a"}


def test_the_difference_of_outputs() -> None:
    expected = np.array([[1.0, -4.0]])
    assert difference(np.array([1.5, -4.0]), expected) == pytest.approx(0.125)
    assert difference(np.array([1.0]), expected) == np.inf
