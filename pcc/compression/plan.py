"""Which option each layer gets: the least loss under a budget, by mixed-integer programming."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from pcc.compression.options import Database, LayerOptions, Option

Price = Callable[[LayerOptions, Option], float]
"""What an option takes of the budget."""
Plan = Mapping[str, Option]
"""An option for each layer."""

GAP = 1e-3
"""The solver ends when its plan's loss is proven to be that near to the least."""
SECONDS = 60.0


@dataclass(frozen=True)
class OutOfReach(Exception):
    """No plan keeps the budget; the cheapest one takes ``least``."""

    least: float


def solve(database: Database, price: Price, budget: float) -> Plan:
    """The plan of least loss, summed over the layers, whose prices sum to ``budget`` at most. Raises `OutOfReach`."""
    layers = list(database.values())
    least = sum(min(price(layer, option) for option in layer.options) for layer in layers)
    if least > budget:
        raise OutOfReach(least)
    pairs = [(number, option) for number, layer in enumerate(layers) for option in layer.options]
    losses = np.array([layers[number].loss(option) for number, option in pairs])
    prices = np.array([price(layers[number], option) for number, option in pairs])
    rows = np.array([number for number, _ in pairs])
    choice = csr_array((np.ones(len(pairs)), (rows, np.arange(len(pairs)))), shape=(len(layers), len(pairs)))
    result: Any = milp(
        losses / max(float(losses.max(initial=0.0)), 1e-30),
        integrality=np.ones(len(pairs)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(choice, 1, 1),
            LinearConstraint(prices[None] / budget, -np.inf, 1),
        ],
        options={"mip_rel_gap": GAP, "time_limit": SECONDS},
    )
    if result.x is None:
        raise RuntimeError(f"the solver found no plan: {result.message}")
    chosen = [pair for pair, taken in zip(pairs, result.x, strict=True) if taken > 0.5]
    return {layers[number].name: option for number, option in chosen}


def loss_of(database: Database, plan: Plan) -> float:
    """What the solver makes least."""
    return sum(database[name].loss(option) for name, option in plan.items())
