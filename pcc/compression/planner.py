"""The plan that a wish asks for, and how fast it is: a plan is compiled and timed, pruned in one shot, and corrected by
what was measured."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from pcc.compression.network import Subject
from pcc.compression.options import Database, Option, Plan
from pcc.compression.plan import loss_of
from pcc.compression.recipe import structure_of
from pcc.compression.report import Attempt
from pcc.compression.times import Times, Timing, time_together
from pcc.compression.wish import Wish, WishOutOfReach
from pcc.progress import Watch
from pcc.target import Target, executes_here
from pcc.training.layers import Structures
from pcc.training.methods.one_shot import OneShot

CORRECTIONS = 4
"""How often a plan that misses the wish is corrected."""
MISS = 0.01
"""How far a measured speed-up may be off below, for two measurements differ..."""
EXCESS = 0.04
"""...and above, where accuracy was given away."""
MOST_AIM = 1.1
"""Times the wish, that a plan is made for because plans before turned out slower than predicted."""


class Chosen(BaseModel):
    """A plan, with what was measured of it."""

    plan: dict[str, Option]
    predicted: float
    """Times as fast as dense."""
    timings: tuple[Timing, ...] = ()
    """Of the dense and the pruned network; none where this computer does not execute the target's code."""
    times: Times
    """By which the plan was made."""
    attempts: tuple[Attempt, ...] = ()

    @property
    def faster(self) -> float:
        """Times as fast as dense, measured."""
        return self.timings[0].seconds / self.timings[1].seconds


@dataclass(frozen=True)
class Planner:
    """Makes plans for a network."""

    subject: Subject
    database: Database
    wish: Wish
    target: Target
    folder: Path
    """Gets the packages that are timed."""
    watch: Watch

    def plan(self, value: float | None) -> Chosen:
        """The plan of least loss, corrected by what plans took where this computer executes the target's code."""
        if not executes_here(self.target):
            times = Times.of_dense(self.database, None)
            return self._chosen(self.wish.plan(self.database, times, value), times)
        dense = self.dense()
        times = Times.of_dense(self.database, time_together([dense])[0])
        found: list[Chosen] = []
        aim = wanted = value or self.wish.value
        for number in range(1 + CORRECTIONS):
            self.watch(f"plan {number + 1}", 0.35 + 0.03 * number)
            try:
                plan = self.wish.plan(self.database, times, aim)
            except WishOutOfReach:
                if not found:
                    raise
                break
            timings = time_together([dense, self._pruned(plan)])
            found.append(self._chosen(plan, times, (timings[0], timings[1])))
            if self.wish.kind not in ("faster", "keep") or 1 - MISS <= found[-1].faster / wanted <= 1 + EXCESS:
                break
            times = times.corrected(self.database, plan, *timings)
            aim *= wanted / found[-1].faster  # the solver likes what only looks cheap
            aim = min(max(aim, wanted), MOST_AIM * wanted)
        attempts = tuple(Attempt(predicted=each.predicted, measured=each.faster) for each in found)
        return self._best(found, value).model_copy(update={"attempts": attempts})

    def _best(self, found: Sequence[Chosen], value: float | None) -> Chosen:
        """The plan of least loss of those that are as fast as is asked, or the fastest."""
        if self.wish.kind not in ("faster", "keep"):
            return found[-1]
        enough = [each for each in found if each.faster >= (1 - MISS) * (value or self.wish.value)]
        if enough:
            return min(enough, key=lambda each: loss_of(self.database, each.plan))
        return max(found, key=lambda each: each.faster)

    def _chosen(self, plan: Plan, times: Times, timings: tuple[Timing, ...] = ()) -> Chosen:
        predicted = times.of_dense_network(self.database) / times.of_plan(self.database, plan)
        return Chosen(plan=dict(plan), predicted=predicted, timings=timings, times=times)

    def dense(self) -> Path:
        """The package of the dense network."""
        package = self.folder / "dense"
        if not package.exists():
            self.subject.compile(self.subject.module, package, self.target)
        return package

    def _pruned(self, plan: Plan) -> Path:
        """The package of a plan."""
        module, package = copy.deepcopy(self.subject.module), self.folder / "pruned"
        OneShot(module, structures_of(plan)).finish()
        self.subject.compile(module, package, self.target)
        return package


def structures_of(plan: Plan) -> Structures:
    """What a plan prunes, by layer."""
    return {name: structure_of(option.structure) for name, option in plan.items() if option.structure}
