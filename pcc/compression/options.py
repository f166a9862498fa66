"""The database: what each layer may become, and what that costs."""

from collections.abc import Mapping
from math import log
from typing import Any

from pydantic import BaseModel, ConfigDict

from pcc.compression.recipe import structure_of

LEAST_LEFT = 1e-3
"""Of a layer's output, that an option leaves in the worst case."""
KNOWN = 0.1
"""Of a layer's output: sensitivities are measured where less is lost, and beyond it..."""
STEEPER = 4.0
"""...each further part counts so often."""
DAMPING = 0.7
"""Exponent of sensitivities: measured once, on few photos, they differ more than they should."""


class Option(BaseModel):
    """A layer in a structure, or dense."""

    model_config = ConfigDict(frozen=True)

    structure: Any = None
    """As a recipe writes it (`pcc.training.recipe.parse_structures`); None: dense."""
    error: float = 0.0
    """Squared error of the layer's output with weights that were fitted again, over the variance of what is passed on:
    of the output, or of its sum with a shortcut."""
    cost: float
    """Cycles by the processor's profile, all calls of the layer together."""
    family: str
    """The kernel family that takes them."""
    macs: int
    """Multiply-accumulates with weights that are not zero."""
    bytes: int
    """Of the weight as that family reads it."""
    channels: float = 1.0
    """The share of its input channels that the layer reads, where the filters that make the others go, too..."""
    feeders: tuple[str, ...] = ()
    """...of these layers, that are left with the same share."""

    @property
    def lost(self) -> float:
        """How much of the output is left, 1 - error, as minus its logarithm: what layers leave multiplies along a
        network, and this adds up. More than is known of counts `STEEPER`."""
        lost = log(1 / max(LEAST_LEFT, 1 - self.error))
        return lost + (STEEPER - 1) * max(0.0, lost - log(1 / (1 - KNOWN)))

    def __str__(self) -> str:
        return "dense" if self.structure is None else str(structure_of(self.structure))


class LayerOptions(BaseModel):
    """A layer of the network."""

    name: str
    options: tuple[Option, ...]
    """The dense one is the first."""
    sensitivity: float = 0.0
    """Squared error of the network's outputs, over their squares, for each unit of `Option.lost`."""
    reason: str = ""
    """Why it has no other option than the dense one."""

    @property
    def dense(self) -> Option:
        return self.options[0]

    def loss(self, option: Option) -> float:
        """What an option does to the network's outputs, as far as layers can be compared."""
        return self.sensitivity**DAMPING * option.lost


Database = dict[str, LayerOptions]
"""By the layer's name, in order of execution."""
Plan = Mapping[str, Option]
"""An option for each layer."""


def filters_left(plan: Plan) -> dict[str, float]:
    """The share of its filters that each layer of a plan is left with."""
    lost = {feeder: option.channels for option in plan.values() for feeder in option.feeders}
    return {name: lost.get(name, 1.0) for name in plan}
