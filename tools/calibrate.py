"""Fits the costs of a processor profile (`pcc.codegen.machine`) to kernels timed on this computer, and says how well families and schedules are ranked.

``taskset -c 1 python -m tools.calibrate`` runs layers of VGG-16, ResNet-50 and MobileNetV2, dense and at several densities, by several schedules of every
family, on one thread, all in turn; each takes its best time. What a schedule executes (`Work`) times the costs is to be that time: the costs are the
non-negative least squares of relative errors. Keep the other core idle: it may be a hyperthread of this one.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from statistics import geometric_mean
from typing import Any

import numpy as np
from scipy.optimize import nnls

from pcc.codegen.family import Candidate, families
from pcc.codegen.interpret import Memory
from pcc.codegen.layers import Conv2d, ConvGeometry
from pcc.codegen.machine import Machine, Work, machine_of
from pcc.codegen.native import NativeKernels
from pcc.codegen.program import ProgramBuilder
from pcc.ir.activation import Activation
from pcc.sparsity import fkw, joint, pattern
from pcc.target import Target, target_named
from tools.table import table

CLOCK_GHZ = 3.0
"""Costs are printed in cycles of this clock; only their ratios matter."""

MOST_SCHEDULES = 3
"""Schedules of a family that are timed for each layer: the cheapest by the present costs, and some across the rest."""


@dataclass(frozen=True)
class Case:
    """A convolution of square planes and windows, padded so that stride 1 keeps the size; one kernel in ``rate`` is kept."""

    inputs: int
    size: int
    outputs: int
    window: int = 3
    stride: int = 1
    rate: float = 3.6
    share: int = 1
    depthwise: bool = False

    def __str__(self) -> str:
        kind = "depthwise " if self.depthwise else ""
        kept = "" if self.depthwise else f", 1/{self.rate:g}" + (f", share {self.share}" if self.share > 1 else "")
        return f"{kind}{self.inputs}->{self.outputs} {self.window}x{self.window}/{self.stride} @{self.size}{kept}"

    def layers(self, b: ProgramBuilder) -> dict[str, Conv2d]:
        """The layer by the format of its weight; dense and packed weights are the same numbers."""
        groups = self.inputs if self.depthwise else 1
        pad = self.window // 2
        geometry = ConvGeometry((self.window, self.window), (self.stride, self.stride), (pad, pad, pad, pad))
        x, y = b.input("x", (1, self.inputs, self.size, self.size)), b.tensor("y", (1, self.outputs, *geometry.output_size(self.size, self.size)))
        weight = np.random.default_rng(0).standard_normal((self.outputs, self.inputs // groups, self.window, self.window), np.float32) * 0.05
        layer = Conv2d("conv", x, y, weight, np.zeros(self.outputs, np.float32), geometry, groups, activation=Activation("relu"))
        if self.depthwise:
            return {"dense": layer}
        patterns = pattern.mine([np.random.default_rng(2).standard_normal((256, 64, 3, 3), np.float32)], 8) if self.window == 3 else None
        cut = joint.project(weight, patterns, self.rate, share=self.share)
        packed = fkw.pack(cut.weight, 1, patterns, self.share, cut.order)
        return {"dense": Conv2d(**{**vars(layer), "weight": cut.weight}), "fkw": Conv2d(**{**vars(layer), "weight": packed})}


POINTWISE = ((64, 56, 256), (256, 56, 64), (512, 28, 128), (128, 28, 512), (1024, 14, 256), (256, 14, 1024), (2048, 7, 512), (512, 7, 2048))

CASES: tuple[Case, ...] = (
    *(Case(c, s, o) for c, s, o in ((64, 224, 64), (128, 112, 128), (128, 56, 256), (256, 28, 512), (512, 28, 512), (512, 14, 512))),
    *(Case(64 << stage, 56 >> stage, 64 << stage) for stage in range(4)),
    *(Case(64 << stage, 112 >> stage, 64 << stage, stride=2) for stage in (1, 2, 3)),
    *(Case(128, 28, 128, rate=rate) for rate in (1.0, 2.0, 8.0)),
    *(Case(128, 28, 128, share=share) for share in (2, 4)),
    *(Case(*sizes, 1) for sizes in POINTWISE),
    *(Case(i, s, o, 1, rate=rate) for i, s, o in ((144, 56, 24), (192, 28, 32), (384, 14, 96), (960, 7, 160)) for rate in (5.0, 10.0)),
    *(Case(c, s, c, stride=stride, depthwise=True) for c, s, stride in ((96, 112, 2), (144, 56, 1), (384, 14, 1), (960, 7, 1))),
)


@dataclass
class Timed:
    """A schedule of a layer as machine code in this process, and the best time it took."""

    case: Case
    family: str
    candidate: Candidate
    run: Any
    seconds: float = float("inf")


def schedules(case: Case, machine: Machine, target: Target) -> Iterator[Timed]:
    """What is timed for a layer."""
    for family in families().values():
        b = ProgramBuilder("calibrate", machine.isa.lanes, layer="conv")
        layer = case.layers(b).get(family.format) if family.layer is Conv2d else None
        offered = family.candidates(layer, machine) if layer else "another kind of layer"
        if isinstance(offered, str):
            continue
        ranked = sorted(offered, key=lambda candidate: machine.cycles(candidate.work))
        for place in dict.fromkeys(round(i * (len(ranked) // 3) / MOST_SCHEDULES) for i in range(MOST_SCHEDULES)):
            yield Timed(case, family.name, ranked[place], _compiled(case, family.name, ranked[place], target, machine))


def _compiled(case: Case, name: str, candidate: Candidate, target: Target, machine: Machine) -> Any:
    """A function that runs the layer once."""
    b = ProgramBuilder("calibrate", machine.isa.lanes, layer="conv")
    layer = case.layers(b)[families()[name].format]
    families()[name].emit(layer, candidate.schedule, b)
    b.output("y", layer.y)
    program = b.build()
    native, memory = NativeKernels(program.kernels, target), Memory(program)
    count = int(np.prod(layer.x.shape))
    memory.arrays["x"][:count] = np.random.default_rng(1).standard_normal(count, np.float32)
    calls = [(call.kernel, memory.arguments(call), call.work) for call in program.calls]

    def run() -> None:
        for kernel, arguments, work in calls:
            native.call(kernel, arguments, 0, work)

    return run


def measure(timed: list[Timed], rounds: int) -> None:
    """Every schedule in turn, ``rounds`` times."""
    for _ in range(rounds):
        for entry in timed:
            entry.run()  # once for the caches
            start = time.perf_counter()
            entry.run()
            entry.seconds = min(entry.seconds, time.perf_counter() - start)


def fit(timed: list[Timed]) -> Work:
    """The costs in cycles."""
    rows = np.array([astuple(entry.candidate.work) for entry in timed]) / np.array([[entry.seconds * CLOCK_GHZ * 1e9] for entry in timed])
    return Work(*(float(cost) for cost in nnls(rows, np.ones(len(rows)))[0]))


def report(timed: list[Timed], costs: Work) -> str:
    """Each schedule's time, and the modelled one."""

    def modelled(entry: Timed) -> float:
        return float(np.dot(astuple(entry.candidate.work), astuple(costs))) / CLOCK_GHZ / 1e6

    rows = []
    for entry in timed:
        measured, model = entry.seconds * 1e3, modelled(entry)
        rows.append((str(entry.case), entry.family, str(entry.candidate.schedule), f"{measured:.3f}", f"{model:.3f}", f"{model / measured:.2f}"))
    losses = []
    for case in dict.fromkeys(entry.case for entry in timed):
        mine = [entry for entry in timed if entry.case == case]
        losses.append(min(mine, key=modelled).seconds / min(entry.seconds for entry in mine))
    worst = max(zip(losses, dict.fromkeys(entry.case for entry in timed), strict=True), key=lambda pair: pair[0])
    summary = (
        f"What the costs choose is slower than the fastest by {geometric_mean(losses) - 1:.1%} (geometric mean), at worst {worst[0] - 1:.0%} ({worst[1]})."
    )
    return table(("layer", "family", "schedule", "ms", "modelled ms", "ratio"), rows) + "\n" + summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", default="native", help="processor to compile for")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    target = target_named("x86_64-linux", options.cpu)
    machine = machine_of(target)
    timed = [entry for case in CASES for entry in schedules(case, machine, target)]
    measure(timed, options.rounds)
    costs = fit(timed)
    print(report(timed, costs))
    print(f"{machine.name}: Work({', '.join(f'{field.name}={getattr(costs, field.name):.3g}' for field in fields(costs))})")


if __name__ == "__main__":
    main()
