"""How long a network takes on this computer, beside its dense self, and what options take by that."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import geometric_mean, median
from time import perf_counter
from typing import Self

import numpy as np
from pydantic import BaseModel

from pcc.compression.options import Database, LayerOptions, Option, Plan, filters_left
from pcc.runtime.loader import Model, load

WARM_UP = 2
RUNS = 21
"""Of each network, in turns; what is reported is the median."""
MOST_SECONDS = 30.0
"""After which no further run begins."""


class Timing(BaseModel):
    """A package on this computer, on one thread."""

    layers: dict[str, float]
    """Seconds by layer, medians."""

    @property
    def seconds(self) -> float:
        """Of a run. A sum of medians: what else the computer does interrupts a run now and then, a layer rarely."""
        return sum(self.layers.values())


def time_together(packages: list[Path]) -> list[Timing]:
    """Runs packages in turns, so that what else the computer does slows all of them alike."""
    with ExitStack() as stack:
        models = [stack.enter_context(load(package)) for package in packages]
        random = np.random.default_rng(0)
        inputs = [[random.standard_normal(spec.shape, np.float32) for spec in model.inputs] for model in models]
        runs: list[list[dict[str, float]]] = [[] for _ in models]
        began = perf_counter()
        for number in range(WARM_UP + RUNS):
            for model, taken, run in zip(models, inputs, runs, strict=True):
                found = _run(model, taken)
                if number >= WARM_UP:
                    run.append(found)
            if runs[0] and perf_counter() - began > MOST_SECONDS:
                break
    return [Timing(layers={name: median(layers[name] for layers in run) for name in run[0]}) for run in runs]


def _run(model: Model, inputs: list[np.ndarray]) -> dict[str, float]:
    """Seconds of one run, by layer."""
    model(*inputs)
    layers: dict[str, float] = {}
    for call in model.profile():
        layers[call.layer] = layers.get(call.layer, 0.0) + call.seconds
    return layers


@dataclass(frozen=True)
class Times:
    """What options take on the target: seconds where this computer executes its code, else cycles of the cost model."""

    per_cycle: Mapping[str, float]
    """By layer: seconds of the dense layer as measured, over its cost; 1 for cycles."""
    rest: float = 0.0
    """Of all else in the network."""
    corrections: Mapping[str, float] = field(default_factory=dict[str, float])
    """Measured over predicted, of layers that were measured with a structure, or without some filters..."""
    families: Mapping[str, float] = field(default_factory=dict[str, float])
    """...and by the kernel family that took them, for other layers."""

    @classmethod
    def of_dense(cls, database: Database, timing: Timing | None) -> Self:
        if timing is None:
            return cls(dict.fromkeys(database, 1.0))
        known = {name: timing.layers.get(name, 0.0) for name in database}
        per_cycle = {name: seconds / database[name].dense.cost for name, seconds in known.items()}
        return cls(per_cycle, timing.seconds - sum(known.values()))

    def of(self, layer: LayerOptions, option: Option, left: float = 1.0) -> float:
        """What an option takes with a share of the layer's filters."""
        if option.structure is None and left == 1:
            return option.cost * self.per_cycle[layer.name]
        correction = self.corrections.get(layer.name, self.families.get(option.family, 1.0))
        return option.cost * left * self.per_cycle[layer.name] * correction

    def of_plan(self, database: Database, plan: Plan) -> float:
        left = filters_left(plan)
        return self.rest + sum(self.of(database[name], option, left[name]) for name, option in plan.items())

    def of_dense_network(self, database: Database) -> float:
        return self.of_plan(database, {name: layer.dense for name, layer in database.items()})

    def corrected(self, database: Database, plan: Plan, dense: Timing, timing: Timing) -> "Times":
        """By what a plan took, beside the dense network in the same minute."""
        usual = self.of_dense_network(database) / dense.seconds
        ratios: dict[str, float] = {}
        families: dict[str, list[float]] = {}
        left = filters_left(plan)
        for name, option in plan.items():
            pruned = option.structure is not None or left[name] < 1
            if pruned and (seconds := timing.layers.get(name, 0.0)) > 0:
                ratios[name] = usual * seconds / (option.cost * left[name] * self.per_cycle[name])
                families.setdefault(option.family, []).append(ratios[name])
        of_family = {family: geometric_mean(found) for family, found in families.items()}
        others = usual * (timing.seconds - sum(timing.layers.get(name, 0.0) for name in plan))
        return Times(self.per_cycle, others, {**self.corrections, **ratios}, {**self.families, **of_family})
