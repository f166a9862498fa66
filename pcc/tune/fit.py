"""Costs from measured trials, and how well costs rank them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import geometric_mean, mean
from typing import Any

import numpy as np
from scipy.optimize import nnls
from scipy.stats import spearmanr

from pcc.codegen.machine import Work
from pcc.tune.trials import Measurable, Trial, counts, vector

Cost = Callable[[Trial], float]
"""What a trial was measured to take."""


PULL = 0.03
"""How strongly costs are drawn to those that were there before: one that is wrong by all of it counts like this
relative error in every schedule. It decides where the layers tell little."""


def fit(trials: Sequence[Trial], cost: Cost, before: Work) -> Work:
    """The non-negative costs of least squares of relative errors, where a schedule counts the less the slower it is
    beside the layer's best: a choice is between good ones."""
    measured, old = np.array([cost(trial) for trial in trials]), vector(before)
    best: dict[Measurable, float] = {}
    for trial, taken in zip(trials, measured, strict=True):
        best[trial.layer] = min(taken, best.get(trial.layer, taken))
    weights = np.array([best[trial.layer] for trial in trials]) / measured
    rows = counts([trial.candidate for trial in trials]) * (weights / measured)[:, None]
    known, pull = np.flatnonzero(old), PULL * np.sqrt(len(trials))
    pulls = np.zeros((len(known), len(old)))
    pulls[np.arange(len(known)), known] = pull / old[known]
    solution = non_negative_least_squares(
        np.vstack([rows, pulls]), np.concatenate([weights, np.full(len(known), pull)])
    )
    return Work(*solution.tolist())


def non_negative_least_squares(matrix: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The x >= 0 of least ``|matrix @ x - wanted|``; columns may be of very different sizes."""
    scales = np.maximum(np.linalg.norm(matrix, axis=0), np.finfo(float).tiny)
    return nnls(matrix / scales, wanted)[0] / scales


@dataclass(frozen=True)
class Ranking:
    """How well costs rank the schedules of each layer, over all families."""

    loss: float
    """How many times longer the schedules take that the costs choose than the best measured ones: the geometric mean
    over layers, 1 at best."""
    worst_loss: float
    worst_layer: str
    correlation: float
    """Spearman's, between modelled and measured costs of a layer: the mean over layers, 1 at best."""


def rank(trials: Sequence[Trial], cost: Cost, costs: Work) -> Ranking:
    """How well ``costs`` rank the trials."""
    losses, correlations = {}, []
    for layer in dict.fromkeys(trial.layer for trial in trials):
        of_layer = [trial for trial in trials if trial.layer == layer]
        modelled, measured = (
            counts([trial.candidate for trial in of_layer]) @ vector(costs),
            np.array([cost(trial) for trial in of_layer]),
        )
        losses[str(layer)] = float(measured[np.argmin(modelled)] / measured.min())
        if len(of_layer) > 2:
            correlations.append(rank_correlation(modelled, measured))
    worst = max(losses, key=lambda layer: losses[layer])
    return Ranking(geometric_mean(losses.values()), losses[worst], worst, mean(correlations))


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation of two rows of numbers; 0 where all of a row are equal, which ranks nothing."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    result: Any = spearmanr(first, second)
    return float(result.statistic)
