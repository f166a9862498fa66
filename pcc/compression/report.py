"""What a compression came to."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from scipy.stats import spearmanr

from pcc.compression.options import Database, LayerOptions, Option, Plan, filters_left
from pcc.compression.times import Times, Timing
from pcc.evaluate.evaluate import Comparison


class LayerResult(BaseModel):
    """What became of a layer. Times are seconds, None where nothing was measured."""

    layer: str
    structure: str
    kept: float
    """Share of its multiply-accumulates."""
    faster: float
    """Times as fast as dense, by the cost model."""
    measured: float | None = None
    """The same, measured."""
    predicted_error: float
    """`Option.error`: of the layer on its own, as the plan had it..."""
    fitted_error: float | None = None
    """...and in the compressed network, whose earlier layers have errors, too."""
    loss: float
    """Its part of what the solver made least."""
    dense_seconds: float | None = None
    seconds: float | None = None
    why: str


class Attempt(BaseModel):
    """A plan that was compiled and timed."""

    predicted: float
    """Times as fast as dense."""
    measured: float


class CompressReport(BaseModel):
    """``report.json``."""

    model: str
    wish: str
    target: str
    cpu: str
    photos: int
    held_out: int
    predicted: float
    """Times as fast as dense: the last plan's, by the cost model and what was measured until then. Where nothing can be
    measured, of convolutions and linear layers alone."""
    measured: float | None
    dense_seconds: float | None
    seconds: float | None
    attempts: tuple[Attempt, ...] = ()
    rank_correlation: float | None
    """Spearman's, of the speed-ups of pruned layers as the cost model has them and as measured."""
    macs: float
    """Share that is left, of convolutions and linear layers."""
    size: float
    """Share of their weights' bytes."""
    comparison: Comparison
    """With the dense network, on photos held out."""
    layers: tuple[LayerResult, ...]
    stages: dict[str, float]
    """Seconds of each stage."""
    note: str = ""
    """What a user should know."""
    compile: str
    """The command line that makes the package from the checkpoint."""


def layer_results(
    database: Database,
    plan: Plan,
    times: Times,
    errors: dict[str, float],
    timings: Sequence[Timing],
) -> tuple[LayerResult, ...]:
    """A row for each layer; ``errors`` of the fit by layer; ``timings`` of the dense and the compressed network, or
    none."""
    rows: list[LayerResult] = []
    left = filters_left(plan)
    takers = {feeder: name for name, option in plan.items() for feeder in option.feeders}
    for name, option in plan.items():
        layer, share = database[name], left[name]
        dense, now = (timing.layers.get(name) for timing in timings) if timings else (None, None)
        rows.append(
            LayerResult(
                layer=name,
                structure=str(option) if share == 1 else f"{option}, {share:.0%} of its filters",
                kept=option.macs * share / max(1, layer.dense.macs),
                faster=layer.dense.cost / (option.cost * share),
                measured=dense / now if dense and now else None,
                predicted_error=option.error,
                fitted_error=errors.get(name),
                loss=layer.loss(option),
                dense_seconds=dense,
                seconds=now,
                why=_why(layer, option, times) if share == 1 else f"{takers[name]} reads no more of them",
            )
        )
    return tuple(rows)


def _why(layer: LayerOptions, option: Option, times: Times) -> str:
    if layer.reason:
        return layer.reason
    if option.structure is not None:
        gain = times.of(layer, layer.dense) - times.of(layer, option)
        of = times.of(layer, layer.dense)
        return f"{gain / of:.0%} of its time for a loss of {layer.loss(option):.2g}" if of else ""
    cheapest = min(layer.options[1:], key=layer.loss)
    return f"dense: the least it could lose is {layer.loss(cheapest):.2g}, which brings more elsewhere"


def rank_correlation(rows: Sequence[LayerResult]) -> float | None:
    """Of predicted and measured speed-ups of the layers that were pruned; None for fewer than three that were
    measured."""
    pairs = [(row.faster, row.measured) for row in rows if row.measured is not None and row.kept < 1]
    if len(pairs) < 3:
        return None
    predicted, measured = zip(*pairs, strict=True)
    result: Any = spearmanr(predicted, measured)
    correlation = float(result.statistic)
    return correlation if correlation == correlation else None
