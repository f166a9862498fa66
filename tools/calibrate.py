"""Fits the costs of a processor profile (`pcc.codegen.machine`) to measured kernels, and says how well families and schedules are ranked by them.

Layers of VGG-16, ResNet-50 and MobileNetV2, dense and at several densities, are run by several schedules of every family, on one thread. What a schedule
executes (`Work`) times the costs is to be what was measured: the costs are the non-negative least squares of relative errors.

``taskset -c 1 python -m tools.calibrate`` times them on this computer, all in turn, and takes the best time of each, in cycles of a clock of 3 GHz: only
ratios matter. Keep the other core idle: it may be a hyperthread of this one. ``--cpu cortex-a76`` counts the instructions that arm64 code executes under QEMU.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from functools import partial
from statistics import geometric_mean

import numpy as np
from scipy.optimize import nnls

from pcc.codegen.family import Candidate, WeightFormat, families
from pcc.codegen.layers import Conv2d
from pcc.codegen.machine import Machine, Work, machine_of
from pcc.codegen.program import ProgramBuilder
from pcc.sparsity import fkw, pattern
from pcc.target import ARM_CPUS, Target, target_named
from tools.count_arm64.forms import Case, count, sparse_weight
from tools.layer_runner import layer_runner
from tools.table import table

CYCLES_PER_SECOND = 3e9

MOST_COUNTED_SIZE = 28
MOST_SCHEDULES = 3
"""Schedules of a family that are timed for each layer: the cheapest by the present costs, and some across the rest."""


@dataclass(frozen=True)
class Pruned:
    """A convolution of which one kernel in ``rate`` is kept, in 8 patterns where its window is 3x3, shared by groups of ``share`` filters."""

    case: Case
    rate: float = 3.6
    share: int = 1

    def __str__(self) -> str:
        return f"{self.case}, 1/{self.rate:g}" + (f", share {self.share}" if self.share > 1 else "")

    def weight(self, format: WeightFormat) -> np.ndarray | fkw.FKW:
        """The weight as a family takes it; both formats hold the same numbers."""
        packed = sparse_weight(self.case, PATTERNS, self.rate, self.share)
        return packed if format == "fkw" else fkw.unpack(packed)


PATTERNS = pattern.mine([np.random.default_rng(2).standard_normal((256, 64, 3, 3), np.float32)], 8)

POINTWISE = ((64, 56, 256), (256, 56, 64), (512, 28, 128), (128, 28, 512), (1024, 14, 256), (256, 14, 1024), (2048, 7, 512), (512, 7, 2048))

CASES: tuple[Pruned, ...] = (
    *(Pruned(Case(c, s, o)) for c, s, o in ((64, 224, 64), (128, 112, 128), (128, 56, 256), (256, 28, 512), (512, 28, 512), (512, 14, 512))),
    *(Pruned(Case(64 << stage, 56 >> stage, 64 << stage)) for stage in range(4)),
    *(Pruned(Case(64 << stage, 112 >> stage, 64 << stage, stride=2)) for stage in (1, 2, 3)),
    *(Pruned(Case(128, 28, 128), rate) for rate in (1.0, 2.0, 8.0)),
    *(Pruned(Case(128, 28, 128), share=share) for share in (2, 4)),
    *(Pruned(Case(*sizes, 1)) for sizes in POINTWISE),
    *(Pruned(Case(i, s, o, 1), rate) for i, s, o in ((144, 56, 24), (192, 28, 32), (384, 14, 96), (960, 7, 160)) for rate in (5.0, 10.0)),
)


@dataclass
class Trial:
    """A schedule of a layer, and what it takes: cycles, or executed instructions."""

    case: Pruned
    family: str
    candidate: Candidate
    cost: float = float("inf")

    def emit(self, b: ProgramBuilder, name: str) -> Conv2d:
        """Records the layer, with an input and an output of its own."""
        family = families()[self.family]
        layer = self.case.case.layer(b, name, self.case.weight(family.format))
        family.emit(layer, self.candidate.schedule, b)
        return layer


def schedules(case: Pruned, machine: Machine) -> Iterator[Trial]:
    """What is tried for a layer."""
    for family in families().values():
        if family.layer is not Conv2d:
            continue
        b = ProgramBuilder("calibrate", machine.isa)
        offered = family.candidates(case.case.layer(b, "conv", case.weight(family.format)), machine)
        if isinstance(offered, str):
            continue
        ranked = sorted(offered, key=lambda candidate: machine.cycles(candidate.work))
        for place in dict.fromkeys(round(i * (len(ranked) // 3) / MOST_SCHEDULES) for i in range(MOST_SCHEDULES)):
            yield Trial(case, family.name, ranked[place])


def measure_time(trials: list[Trial], target: Target, rounds: int) -> None:
    """Every schedule in turn, ``rounds`` times."""
    runs = [layer_runner(partial(trial.emit, name="conv"), target) for trial in trials]
    for _ in range(rounds):
        for trial, run in zip(trials, runs, strict=True):
            run()  # once for the caches
            start = time.perf_counter()
            run()
            trial.cost = min(trial.cost, (time.perf_counter() - start) * CYCLES_PER_SECOND)


def count_instructions(trials: list[Trial], target: Target) -> None:
    """Every schedule once, under QEMU; one program for the schedules of a layer."""
    for case in dict.fromkeys(trial.case for trial in trials):
        b = ProgramBuilder("calibrate", machine_of(target).isa)
        of_case = [trial for trial in trials if trial.case == case]
        for place, trial in enumerate(of_case):
            trial.emit(b, f"layer{place}")
        counted = count(b.build())
        for place, trial in enumerate(of_case):
            trial.cost = counted[f"layer{place}"].total


def fit(trials: list[Trial]) -> Work:
    """The costs."""
    rows = np.array([astuple(trial.candidate.work) for trial in trials]) / np.array([[trial.cost] for trial in trials])
    return Work(*(float(cost) for cost in nnls(rows, np.ones(len(rows)))[0]))


def report(trials: list[Trial], costs: Work) -> str:
    """What each schedule takes, in thousands, and what it was modelled to take."""

    def modelled(trial: Trial) -> float:
        return float(np.dot(astuple(trial.candidate.work), astuple(costs)))

    rows = []
    for trial in trials:
        model = modelled(trial)
        numbers = f"{trial.cost / 1e3:.0f}", f"{model / 1e3:.0f}", f"{model / trial.cost:.2f}"
        rows.append((str(trial.case), trial.family, str(trial.candidate.schedule), *numbers))
    losses: dict[Pruned, float] = {}
    for case in dict.fromkeys(trial.case for trial in trials):
        of_case = [trial for trial in trials if trial.case == case]
        losses[case] = min(of_case, key=modelled).cost / min(trial.cost for trial in of_case)
    worst = max(losses, key=lambda case: losses[case])
    summary = f"The costs choose {geometric_mean(losses.values()) - 1:.1%} worse than the best (geometric mean), at worst {losses[worst] - 1:.0%} ({worst})."
    return table(("layer", "family", "schedule", "measured", "modelled", "ratio"), rows) + "\n" + summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", default="native", help="processor to compile for")
    parser.add_argument("--rounds", type=int, default=15, help="how often each schedule is timed")
    options = parser.parse_args()
    is_arm = options.cpu in ARM_CPUS
    target = target_named("aarch64-linux" if is_arm else "x86_64-linux", options.cpu)
    machine = machine_of(target)
    # Emulation is slow, and counts of a large plane say no more than those of a small one.
    cases = [pruned for pruned in CASES if not is_arm or pruned.case.size <= MOST_COUNTED_SIZE]
    trials = [trial for case in cases for trial in schedules(case, machine)]
    if is_arm:
        count_instructions(trials, target)
    else:
        measure_time(trials, target, options.rounds)
    costs = fit(trials)
    print(report(trials, costs))
    print(f"{machine.name}: Work({', '.join(f'{field.name}={getattr(costs, field.name):.3g}' for field in fields(costs))})")


if __name__ == "__main__":
    main()
