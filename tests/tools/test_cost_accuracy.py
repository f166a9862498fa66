"""How good costs were."""

import pytest

from tools.bench_peers.ratios import Ratio
from tools.cost_accuracy import Accuracy, Priced, sweep_lines
from tools.never_slower.result import Point, Sweep


def test_accuracy() -> None:
    found = Accuracy.of([Priced("a", 1, 1), Priced("b", 2, 4), Priced("c", 3, 3.3), Priced("d", 9, 5)])
    assert (found.points, found.near) == (4, 0.5)
    assert found.correlation == pytest.approx(0.8), "b and c change places"
    assert found.worst.name == "b"
    assert found.middle == pytest.approx((1 + 3 / 3.3) / 2)


def test_a_sweep_counts_the_points_where_a_choice_was_made() -> None:
    def point(gain: float, modelled: float) -> Point:
        ratio = Ratio(median=gain, low=gain, high=gain, pairs=1)
        return Point(
            layer="8->8 3x3/1 @7",
            kernel=3,
            density=0.1,
            family="conv-sparse-scatter",
            schedule="",
            modelled=modelled,
            gain=ratio,
            digest="",
        )

    points = [point(1, 1), point(2, 2), point(3, 4), point(0.9, 1.1), point(4, 5)]
    text = "\n".join(sweep_lines(Sweep(processor="A processor", measure="time", command="a command", points=points)))
    assert "A sparse kernel was chosen at 4 of 5 points. At 3 it was no slower than the dense one, but for 3%." in text
    assert "| all    |      4 |            1.000 |" in text
    assert "8->8 3x3/1 @7, 10% kept" in text
