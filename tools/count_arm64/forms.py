"""Dense and sparse kernels beside each other, layer by layer: what each form of a layer executes on arm64.

``python -m tools.count_arm64.forms resnet50 --rate 3.6`` compiles each layer dense and, pruned for filter groups of 1, 2 and 4, sparse, and runs all of
them in one package. Counts are of the layer alone, staging and stores included. They are exact and repeat; they are not times.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pcc.codegen.family import cheapest, families
from pcc.codegen.layers import Conv2d, ConvGeometry
from pcc.codegen.machine import machine_of
from pcc.codegen.objects import compile_kernels
from pcc.codegen.plan_memory import PlanMemory
from pcc.codegen.program import Program, ProgramBuilder
from pcc.dtype import FLOAT32
from pcc.ir.activation import Activation
from pcc.package import PackageSpec, TargetBuild, build_package, open_package
from pcc.sparsity import fkw, joint, pattern
from pcc.target import target_named
from tools.count_arm64.qemu import CPU, Counted, count_package
from tools.table import table

TARGET = target_named("aarch64-linux", CPU)
MACHINE = machine_of(TARGET)
LANES = MACHINE.isa.lanes(FLOAT32)
SHARES = (1, 2, 4)
"""Filters that share channels and patterns."""


@dataclass(frozen=True)
class Case:
    """A convolution with square windows and planes, padded so that stride 1 keeps the size."""

    inputs: int
    size: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1

    def __str__(self) -> str:
        kind = "depthwise " if self.groups == self.inputs else ""
        return f"{kind}{self.inputs}->{self.outputs} {self.kernel}x{self.kernel}/{self.stride} @{self.size}"

    @property
    def geometry(self) -> ConvGeometry:
        pad = self.kernel // 2
        return ConvGeometry((self.kernel, self.kernel), (self.stride, self.stride), (pad, pad, pad, pad))

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        return self.outputs, self.inputs // self.groups, self.kernel, self.kernel

    @property
    def multiplies(self) -> int:
        """Vector multiply-adds that a direct dense convolution needs, without junk columns and tile tails."""
        rows, columns = self.geometry.output_size(self.size, self.size)
        return int(np.prod(self.weight_shape)) * rows * columns // LANES

    def layer(self, b: ProgramBuilder, name: str, weight: np.ndarray | fkw.FKW) -> Conv2d:
        """The layer with an input and an output of its own, biased, with ReLU."""
        rows, columns = self.geometry.output_size(self.size, self.size)
        x, y = b.input(f"{name}_x", (1, self.inputs, self.size, self.size)), b.tensor(f"{name}_y", (1, self.outputs, rows, columns))
        b.output(f"{name}_y", y)
        b.layer = name
        return Conv2d(name, x, y, weight, np.ones(self.outputs, np.float32), self.geometry, self.groups, activation=Activation("relu"))


VGG16 = tuple(
    Case(*sizes)
    for sizes in ((3, 224, 64), (64, 224, 64), (64, 112, 128), (128, 112, 128), (128, 56, 256), (256, 56, 256), (256, 28, 512), (512, 28, 512), (512, 14, 512))
)
RESNET50 = (Case(64, 28, 64), *(Case(64 << s, 112 >> s, 64 << s, 3, 2) for s in (1, 2, 3)), *(Case(64 << s, 56 >> s, 64 << s) for s in range(4)))
RESNET50_1X1 = tuple(case for s in range(4) for case in (Case(64 << s, 56 >> s, 256 << s, 1), Case(256 << s, 56 >> s, 64 << s, 1)))
MOBILENET_V2 = tuple(
    Case(hidden, size, hidden, 3, stride, hidden)
    for hidden, size, stride in ((32, 112, 1), (96, 112, 2), (144, 56, 1), (144, 56, 2), (192, 28, 1), (192, 28, 2), (384, 14, 1), (576, 14, 2), (960, 7, 1))
)
NETWORKS = {"vgg16": VGG16, "resnet50": RESNET50, "resnet50-1x1": RESNET50_1X1, "mobilenet-v2": MOBILENET_V2}


def count(program: Program) -> dict[str, Counted]:
    """Executed instructions of every layer of a program for NEON (memory not planned), on one thread. Raises `PccError` where `missing` says why."""
    planned = PlanMemory()(program)
    objects = [kernel.object for kernel in compile_kernels(planned.kernels, TARGET)]
    with tempfile.TemporaryDirectory() as folder:
        build_package(PackageSpec(planned.name, [TargetBuild(TARGET, planned, objects)]), Path(folder) / "package")
        return count_package(open_package(Path(folder) / "package"))


def dense_weight(case: Case) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(case.weight_shape, np.float32) * 0.05


def sparse_weight(case: Case, patterns: np.ndarray | None, rate: float, share: int) -> fkw.FKW:
    """Random weights pruned as the passes prune them: 3x3 windows to the patterns, kernels to one in ``rate``, for groups of ``share`` filters."""
    patterns = patterns if case.kernel == 3 else None
    cut = joint.project(dense_weight(case), patterns, rate, share=share)
    return fkw.pack(cut.weight, 1, patterns, share, cut.order)


def record(b: ProgramBuilder, case: Case, name: str, weight: np.ndarray | fkw.FKW, family: str | None = None) -> float:
    """Adds the layer as the cheapest family for its weight computes it, or the one that is named; what the cost model says."""
    layer = case.layer(b, name, weight)
    wanted = "fkw" if isinstance(weight, fkw.FKW) else "dense"
    asked = [each for each in families().values() if each.layer is Conv2d and each.format == wanted and family in (None, each.name)]
    priced = [(each, found) for each in asked if not isinstance(found := cheapest(each, layer, MACHINE), str)]
    chosen, (candidate, cost) = min(priced, key=lambda pair: pair[1][1])
    chosen.emit(layer, candidate.schedule, b)
    return cost


def compare(cases: Sequence[Case], patterns: np.ndarray | None, rate: float) -> str:
    """The table: dense, then sparse for each of `SHARES`; ratios are sparse to dense instructions, then what the cost models say."""
    b, costs = ProgramBuilder("instructions", MACHINE.isa), {}
    for i, case in enumerate(cases):
        costs[i, 0] = record(b, case, f"layer{i}_0", dense_weight(case))
        for share in SHARES if case.groups == 1 and case.inputs > 3 else ():
            costs[i, share] = record(b, case, f"layer{i}_{share}", sparse_weight(case, patterns, rate, share))
    counted = count(b.build())
    rows = []
    for i, case in enumerate(cases):
        dense = counted[f"layer{i}_0"]
        for share in (0, *SHARES):
            if (i, share) in costs:
                one = counted[f"layer{i}_{share}"]
                form = f"sparse, groups of {share}" if share else "dense"
                ratios = (f"{one.total / dense.total:.3f}", f"{costs[i, share] / costs[i, 0]:.3f}") if share else ("", "")
                rows.append((str(case), form, _short(one.kernel), *_numbers(one, case), *ratios))
    return table(("layer", "form", "kernel", *_NUMBERS, "to dense", "modelled"), rows)


_CLASSES = ("vfma", "vload", "vstore", "int", "branch")
_NUMBERS = ("total", *_CLASSES, "vfma/total", "vfma/needed")


def _numbers(one: Counted, case: Case) -> list[str]:
    """Counts in thousands, the share of multiply-adds, and those executed to those of a direct dense convolution."""
    thousands = [f"{number / 1e3:.0f}" for number in (one.total, *(one.counts.instructions[name] for name in _CLASSES))]
    return [*thousands, f"{one.vfma / one.total:.2f}", f"{one.vfma / case.multiplies:.3f}"]


def _short(kernel: str) -> str:
    return kernel.removeprefix("pcc_conv_").removesuffix("_relu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+", choices=NETWORKS)
    parser.add_argument("--patterns", type=int, choices=(4, 0), default=4, help="4: the designed ones; 0: every tap")
    parser.add_argument("--rate", type=float, default=3.6, help="connectivity: one kernel in so many is kept")
    options = parser.parse_args()
    for network in options.networks:
        print(f"{network}: thousands of instructions")
        print(compare(NETWORKS[network], pattern.DESIGNED if options.patterns else None, options.rate), flush=True)


if __name__ == "__main__":
    main()
