"""Which option each layer gets: the least loss under a budget, by mixed-integer programming."""

import ctypes
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from pcc.compression.options import Database, LayerOptions, Option, Plan

Price = Callable[[LayerOptions, Option, float], float]
"""What an option takes of the budget with that share of the layer's filters."""

GAP = 1e-3
"""The solver ends when its plan's loss is proven to be that near to the least."""
SECONDS = 60.0
TIME_OVER = 1
"""The solver's status."""


@dataclass(frozen=True)
class OutOfReach(Exception):
    """No plan keeps the budget; the cheapest one takes ``least``."""

    least: float


@dataclass(frozen=True)
class _Choice:
    """What may become of a layer: its own option, and the share of its filters that the layer it feeds leaves it."""

    layer: LayerOptions
    option: Option
    left: float


def solve(database: Database, price: Price, budget: float) -> Plan:
    """The plan of least loss, summed over the layers, whose prices sum to ``budget`` at most. Raises `OutOfReach`."""
    choices = _choices(database)
    losses = np.array([choice.layer.loss(choice.option) for choice in choices])
    prices = np.array([price(choice.layer, choice.option, choice.left) for choice in choices])
    consistent = _consistent(database, choices)
    taken = _least(losses, [*consistent, LinearConstraint(prices[None] / budget, -np.inf, 1)]) if budget > 0 else None
    if taken is None:
        cheapest = _least(prices, consistent)
        assert cheapest is not None  # the dense network is consistent
        raise OutOfReach(float(prices[cheapest].sum()))
    chosen = {choices[place].layer.name: choices[place].option for place in taken}
    return {name: chosen[name] for name in database}


def _choices(database: Database) -> list[_Choice]:
    takers = _takers(database)
    return [
        _Choice(layer, option, left)
        for layer in database.values()
        for option in layer.options
        for left in (1.0, *(taken.channels for taken in _taking(takers.get(layer.name))))
        if left == 1 or option.structure is None or option.feeders  # filters that share connections stay together
    ]


def _takers(database: Database) -> dict[str, LayerOptions]:
    """For layers whose filters another layer's options take, that layer."""
    return {feeder: layer for layer in database.values() for option in _taking(layer) for feeder in option.feeders}


def _taking(layer: LayerOptions | None) -> list[Option]:
    return [option for option in layer.options if option.feeders] if layer else []


def _consistent(database: Database, choices: list[_Choice]) -> list[LinearConstraint]:
    """Each layer gets one choice, in which it loses the filters that the layer it feeds takes."""
    names = list(database)
    rows = [[float(choice.layer.name == name) for choice in choices] for name in names]
    constraints = [LinearConstraint(csr_array(rows), 1, 1)]
    links = [
        [
            float(choice.layer.name == feeder and choice.left == option.channels) - float(choice.option is option)
            for choice in choices
        ]
        for feeder, taker in _takers(database).items()
        for option in _taking(taker)
    ]
    return [*constraints, *([LinearConstraint(csr_array(links), 0, 0)] if links else [])]


def _least(sizes: np.ndarray, constraints: list[LinearConstraint]) -> np.ndarray | None:
    """The places of the choices whose sizes sum to the least; None where the constraints cannot be kept."""
    with _unheard():
        result: Any = milp(
            sizes / max(float(sizes.max(initial=0.0)), 1e-30),
            integrality=np.ones(len(sizes)),
            bounds=Bounds(0, 1),
            constraints=constraints,
            options={"mip_rel_gap": GAP, "time_limit": SECONDS},
        )
    if result.x is None and result.status == TIME_OVER:
        raise RuntimeError(f"the solver found no plan: {result.message}")
    return None if result.x is None else np.flatnonzero(result.x > 0.5)


@contextmanager
def _unheard() -> Generator[None]:
    """Inside, what code in C prints goes nowhere: HiGHS 1.12 has a line for its developers that no option turns off."""
    c_library = ctypes.CDLL(None)
    c_library.fflush(None)
    output, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        c_library.fflush(None)  # what it printed may still be in the C library's buffer
        os.dup2(output, 1)
        os.close(output)
        os.close(nowhere)


def loss_of(database: Database, plan: Plan) -> float:
    """What the solver makes least."""
    return sum(database[name].loss(option) for name, option in plan.items())
