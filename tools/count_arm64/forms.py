"""Dense and sparse kernels beside each other, layer by layer: what each form of a layer executes on arm64.

``python -m tools.count_arm64.forms resnet50 --rate 3.6`` compiles each layer dense and, pruned for filter groups of 1,
2 and 4, sparse, and runs all of them in one package. Counts are of the layer alone, staging and stores included. They
are exact and repeat; they are not times.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from pcc.codegen.family import cheapest, families
from pcc.codegen.layers import Conv2d
from pcc.codegen.machine import machine_of
from pcc.codegen.program import ProgramBuilder
from pcc.deploy.counting_qemu import CPU, Counted
from pcc.dtype import FLOAT32
from pcc.sparsity import fkw, pattern
from pcc.target import target_named
from pcc.tune.layers import Case, dense_weight, sparse_weight
from pcc.tune.measure import count_program
from tools.table import table

TARGET = target_named("aarch64-linux", CPU)
MACHINE = machine_of(TARGET)
LANES = MACHINE.isa.lanes(FLOAT32)
SHARES = (1, 2, 4)
"""Filters that share channels and patterns."""

VGG16 = tuple(
    Case(*sizes)
    for sizes in (
        (3, 224, 64),
        (64, 224, 64),
        (64, 112, 128),
        (128, 112, 128),
        (128, 56, 256),
        (256, 56, 256),
        (256, 28, 512),
        (512, 28, 512),
        (512, 14, 512),
    )
)
RESNET50 = (
    Case(64, 28, 64),
    *(Case(64 << s, 112 >> s, 64 << s, 3, 2) for s in (1, 2, 3)),
    *(Case(64 << s, 56 >> s, 64 << s) for s in range(4)),
)
RESNET50_1X1 = tuple(
    case for s in range(4) for case in (Case(64 << s, 56 >> s, 256 << s, 1), Case(256 << s, 56 >> s, 64 << s, 1))
)
MOBILENET_V2 = tuple(
    Case(hidden, size, hidden, 3, stride, hidden)
    for hidden, size, stride in (
        (32, 112, 1),
        (96, 112, 2),
        (144, 56, 1),
        (144, 56, 2),
        (192, 28, 1),
        (192, 28, 2),
        (384, 14, 1),
        (576, 14, 2),
        (960, 7, 1),
    )
)
NETWORKS = {"vgg16": VGG16, "resnet50": RESNET50, "resnet50-1x1": RESNET50_1X1, "mobilenet-v2": MOBILENET_V2}


def record(b: ProgramBuilder, case: Case, name: str, weight: np.ndarray | fkw.FKW, family: str | None = None) -> float:
    """Adds the layer as the cheapest family for its weight computes it, or the one that is named; what the cost model
    says."""
    layer = case.layer(b, name, weight)
    wanted = "fkw" if isinstance(weight, fkw.FKW) else "dense"
    asked = [
        each
        for each in families().values()
        if each.layer is Conv2d and each.format == wanted and family in (None, each.name)
    ]
    priced = [(each, found) for each in asked if not isinstance(found := cheapest(each, layer, MACHINE), str)]
    chosen, (candidate, cost) = min(priced, key=lambda pair: pair[1][1])
    chosen.emit(layer, candidate.schedule, b)
    return cost


def compare(cases: Sequence[Case], patterns: np.ndarray | None, rate: float) -> str:
    """The table: dense, then sparse for each of `SHARES`; ratios are sparse to dense instructions, then what the cost
    models say."""
    b, costs = ProgramBuilder("instructions", MACHINE.isa), {}
    for i, case in enumerate(cases):
        costs[i, 0] = record(b, case, f"layer{i}_0", dense_weight(case))
        for share in SHARES if case.groups == 1 and case.inputs > 3 else ():
            costs[i, share] = record(b, case, f"layer{i}_{share}", sparse_weight(case, patterns, rate, share))
    counted = count_program(b.build(), TARGET)
    rows = []
    for i, case in enumerate(cases):
        dense = counted[f"layer{i}_0"]
        for share in (0, *SHARES):
            if (i, share) in costs:
                layer = counted[f"layer{i}_{share}"]
                form = f"sparse, groups of {share}" if share else "dense"
                ratios = (
                    (f"{layer.total / dense.total:.3f}", f"{costs[i, share] / costs[i, 0]:.3f}") if share else ("", "")
                )
                rows.append((str(case), form, _short(layer.kernel), *_numbers(layer, case), *ratios))
    return table(("layer", "form", "kernel", *_NUMBERS, "to dense", "modelled"), rows)


_CLASSES = ("vfma", "vload", "vstore", "int", "branch")
_NUMBERS = ("total", *_CLASSES, "vfma/total", "vfma/needed")


def _numbers(layer: Counted, case: Case) -> list[str]:
    """Counts in thousands, the share of multiply-adds, and those executed to those of a direct dense convolution."""
    thousands = [
        f"{number / 1e3:.0f}" for number in (layer.total, *(layer.counts.instructions[name] for name in _CLASSES))
    ]
    return [*thousands, f"{layer.vfma / layer.total:.2f}", f"{layer.vfma * LANES / case.macs:.3f}"]


def _short(kernel: str) -> str:
    return kernel.removeprefix("pcc_conv_").removesuffix("_relu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+", choices=NETWORKS)
    parser.add_argument("--patterns", type=int, choices=(4, 0), default=4, help="4: the designed ones; 0: every tap")
    parser.add_argument("--rate", type=float, default=3.6, help="connectivity: one connection in so many is kept")
    options = parser.parse_args()
    for network in options.networks:
        print(f"{network}: thousands of instructions")
        print(compare(NETWORKS[network], pattern.DESIGNED if options.patterns else None, options.rate), flush=True)


if __name__ == "__main__":
    main()
