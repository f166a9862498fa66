"""What is measured: schedules of every family for every layer, and what each of them took."""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field
from typing import Protocol

import numpy as np

from pcc.codegen.family import Candidate, families, offered
from pcc.codegen.isa import Isa
from pcc.codegen.layers import Conv2d
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import Program, ProgramBuilder
from pcc.tune.layers import Pruned

MOST_SCHEDULES = 6
"""Schedules of a family that are measured for a layer at first."""

RIVALS = 1.3
"""They are modelled to take at most so many times the cheapest one."""


class Measurable(Protocol):
    """A layer that can be run by itself. Equal ones are the same layer, and ``str`` says which it is."""

    def emit(self, b: ProgramBuilder, name: str, family: str, schedule: object) -> None:
        """Records the layer with an input and an output of its own, its calls under ``name``."""
        ...


@dataclass(frozen=True)
class Trial:
    """A schedule of a layer."""

    layer: Measurable
    family: str
    candidate: Candidate

    def __str__(self) -> str:
        return f"{self.layer}: {self.family}, {self.candidate.schedule}"

    @property
    def key(self) -> str:
        """What it is, with every detail of the schedule."""
        return f"{self.layer}: {self.family}, {self.candidate.schedule!r}"

    def emit(self, b: ProgramBuilder, name: str) -> None:
        """Records the layer, with an input and an output of its own."""
        self.layer.emit(b, name, self.family, self.candidate.schedule)

    def program(self, isa: Isa) -> Program:
        """The layer by itself."""
        b = ProgramBuilder("trial", isa)
        self.emit(b, "conv")
        return b.build()


@dataclass(frozen=True)
class Offer:
    """All schedules that a family offers for a layer."""

    layer: Measurable
    family: str
    candidates: Sequence[Candidate]
    works: np.ndarray = field(init=False, repr=False, compare=False)
    """fp64 (candidates, kinds of work): their work."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "works", counts(self.candidates))

    def cheapest(self, costs: Work) -> Trial:
        return Trial(self.layer, self.family, self.candidates[int(np.argmin(self.works @ vector(costs)))])

    def rivals(self, costs: Work) -> list[Trial]:
        """The cheapest schedule, and those near it that are least like those before them, by the shares of what they
        spend their time on."""
        parts = self.works * vector(costs)
        totals = parts.sum(axis=1)
        chosen = [int(np.argmin(totals))]
        near = np.flatnonzero(totals <= RIVALS * totals.min())
        shares = parts / totals[:, None]
        distances = np.full(len(near), np.inf)
        while len(chosen) < min(MOST_SCHEDULES, len(near)):
            distances = np.minimum(distances, np.abs(shares[near] - shares[chosen[-1]]).sum(axis=1))
            chosen.append(int(near[np.argmax(distances)]))
        return [Trial(self.layer, self.family, self.candidates[place]) for place in dict.fromkeys(chosen)]


def offers(layer: Pruned, machine: Machine) -> Iterator[Offer]:
    """What the families offer for a layer."""
    for family in families().values():
        if family.layer is not Conv2d or not layer.has_format(family.format):
            continue
        candidates = offered(
            family,
            layer.case.layer(ProgramBuilder("offers", machine.isa), "conv", layer.weight(family.format)),
            machine,
        )
        if not isinstance(candidates, str):
            yield Offer(layer, family.name, candidates)


def vector(work: Work) -> np.ndarray:
    """fp64 (kinds of work,)."""
    return np.array(astuple(work), np.float64)


def counts(candidates: Sequence[Candidate]) -> np.ndarray:
    """fp64 (candidates, kinds of work)."""
    return np.array([astuple(candidate.work) for candidate in candidates], np.float64)
