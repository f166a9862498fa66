"""A profile by layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pcc.package.layer_report import LayerReport

if TYPE_CHECKING:
    from pcc.deploy import BenchResult


@dataclass(frozen=True)
class LayerTime:
    """A layer and the time of its calls; ``share`` is of the time of all layers."""

    report: LayerReport
    seconds: float
    share: float


def layer_times(result: "BenchResult", layers: Sequence[LayerReport]) -> list[LayerTime]:
    """The profile of a run by layers, in order of execution."""
    total = sum(call.seconds for call in result.calls) or 1.0
    times, calls = [], iter(result.calls)
    for layer in layers:
        seconds = sum(next(calls).seconds for _ in layer.calls)
        times.append(LayerTime(layer, seconds, seconds / total))
    return times
