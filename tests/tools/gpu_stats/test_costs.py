"""Costs from what compilers say: fitted to kernels whose costs are known."""

from dataclasses import asdict

import numpy as np
import pytest

from pcc.codegen.opencl.profiles import DeviceWork
from tools.gpu_stats.costs import fit, predicted, report
from tools.gpu_stats.layers import Priced
from tools.gpu_stats.stats import Counts

KNOWN = DeviceWork(mads=1.0, memory=2.0, steps=15.0, loops=25.0, outputs=4.5, items=30.0, adds=1.2)


def kernels(count: int, seed: int) -> list[Priced]:
    """Schedules of random work, and the slots that they take."""
    works = [DeviceWork(*row) for row in np.random.default_rng(seed).uniform(1, 100, (count, 7)).tolist()]
    slots = [float(np.dot([*asdict(work).values()], [*asdict(KNOWN).values()])) for work in works]
    return [Priced("any", work, Counts(slots=each), False, 8) for work, each in zip(works, slots, strict=True)]


def test_known_costs_are_found() -> None:
    layers = [{"dense": kernels(4, seed), "sparse": kernels(4, seed + 100)} for seed in range(4)]
    found = fit(layers)
    assert asdict(found) == pytest.approx(asdict(KNOWN), rel=1e-6)
    assert predicted(layers[0]["dense"][0], found) == pytest.approx(layers[0]["dense"][0].counts.slots)
    said = report(layers, found)
    assert "dense          1.00 to 1.00" in said
    assert "rank correlation in a layer: 1.000, at least 1.000" in said
    assert "slots of what they choose over the fewest: 1.000, at most 1.000" in said
