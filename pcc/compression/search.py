"""A short search for what errors of layers do not show: how they work together (as in SPDY, Frantar and Alistarh, ICML
2022, which searches for a coefficient of each layer).

Losses of layers are added up, which is true of small ones only. So several plans are made, each of options whose errors
stay below another bound; each is fitted on a few photos and looked at on others, and the best one's bound is kept.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from pcc.compression.options import Database, Plan
from pcc.compression.wish import WishOutOfReach
from pcc.training.distill import distances
from pcc.training.layers import Structures
from pcc.training.reconstruct import reconstruct
from pcc.training.reconstruction_watch import FEWEST_COLUMNS
from pcc.training.views import random_parts

BOUNDS = (0.1, 0.2, 1.0)
"""Of the error of a layer's output."""
PHOTOS = 128
"""That plans are fitted on, and as many others that they are looked at on, at most. Where half of them are too few
for a fit, all are fitted on and parts of them looked at: a fit meets what it was fitted on."""
COLUMNS = 16384
"""Output positions that layers are fitted on."""


class Trial(BaseModel):
    """A plan that was looked at."""

    bound: float
    """The most error that its options have."""
    distance: float
    """Of the fitted network's outputs from the dense one's (`pcc.training.distill.distances`)."""


def below(database: Database, bound: float) -> Database:
    """The options whose errors are not above a bound."""
    return {
        name: layer.model_copy(update={"options": tuple(each for each in layer.options if each.error <= bound)})
        for name, layer in database.items()
    }


def search(
    module: nn.Module,
    photos: Tensor,
    batch: int,
    plan: Callable[[Database], Plan],
    database: Database,
    structures: Callable[[Plan], Structures],
    watch: Callable[[str], None],
) -> list[Trial]:
    """Looks at what ``plan`` makes of the options below each bound, where it does not raise `WishOutOfReach`. Where no
    bound but the last allows a plan, or all give the same, there is nothing to look at, and one trial."""
    middle = max(FEWEST_COLUMNS, min(PHOTOS, len(photos) // 2))
    fitted = photos[:middle]
    others = photos[middle : middle + PHOTOS]
    if not len(others):
        others = random_parts(fitted, torch.Generator().manual_seed(0))
    plans: dict[float, Plan] = {}
    for bound in BOUNDS:
        with suppress(WishOutOfReach):
            if (found := plan(below(database, bound))) not in plans.values():
                plans[bound] = found
    if len(plans) < 2:
        return [Trial(bound=BOUNDS[-1], distance=0.0)]
    students: list[nn.Module] = []
    for bound, found in plans.items():
        watch(f"a plan of errors up to {bound:g}")
        students.append(copy.deepcopy(module).eval())
        reconstruct(students[-1], structures(found), fitted.split(batch), COLUMNS)
    each_distance = distances(students, module, others.split(batch))
    return [Trial(bound=bound, distance=each) for bound, each in zip(plans, each_distance, strict=True)]


def of_nearest(trials: Sequence[Trial], database: Database) -> Database:
    """The options that the plan nearest to the dense network was made of."""
    return below(database, min(trials, key=lambda trial: trial.distance).bound)
