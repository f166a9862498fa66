"""``python -m tools.cost_accuracy [PACKAGE ...]``: how often the costs that ``pcc explain`` prints were right, against
what was measured.

Without a package, the gains over dense kernels of the sweeps that `tools.never_slower` left. Of packages, the costs of
layers beside the times that each takes on this computer: run it on a quiet one.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from pcc.deploy.host import Host
from pcc.package.read import open_package
from pcc.report.layer_times import layer_times
from pcc.tune.fit import rank_correlation
from tools.never_slower.result import NOISE, Sweep, load_sweeps
from tools.performance import SWEEPS
from tools.table import table

NEAR = 1.25
"""A cost is near where it is wrong by this factor at most."""

WARMUP, RUNS = 5, 30


@dataclass(frozen=True)
class Priced:
    """Something by its cost and by measurement, in one unit."""

    name: str
    modelled: float
    measured: float

    @property
    def miss(self) -> float:
        """How many times too high the cost is."""
        return self.modelled / self.measured


@dataclass(frozen=True)
class Accuracy:
    """How good the costs of some points are."""

    points: int
    correlation: float
    """Spearman's, of costs and measurements: 1 at best."""
    middle: float
    """The median of cost over measurement."""
    near: float
    """The share of costs that are `NEAR`."""
    worst: Priced

    @classmethod
    def of(cls, points: Sequence[Priced]) -> "Accuracy":
        misses = np.array([point.miss for point in points])
        near = float(np.mean(np.maximum(misses, 1 / misses) <= NEAR))
        correlation = rank_correlation(
            np.array([point.modelled for point in points]), np.array([point.measured for point in points])
        )
        worst = points[int(np.argmax(np.abs(np.log(misses))))]
        return cls(len(points), correlation, float(np.median(misses)), near, worst)

    @property
    def cells(self) -> list[str]:
        return [
            str(self.points),
            f"{self.correlation:.3f}",
            f"{self.middle:.2f}",
            f"{self.near:.0%}",
            f"{self.worst.miss:.2f}",
            self.worst.name,
        ]


HEADERS = ["points", "rank correlation", "cost over measured, median", f"within {NEAR:g}x", "worst miss", "at"]


def sweep_lines(sweep: Sweep) -> list[str]:
    """The gains of the points where a sparse kernel was chosen, and how often that was right."""
    chosen = [point for point in sweep.points if point.modelled != 1]
    groups = {
        "all": chosen,
        **{f"{kernel}x{kernel}": [point for point in chosen if point.kernel == kernel] for kernel in (7, 3, 1)},
    }
    rows = []
    for name, points in groups.items():
        if len(points) > 2:
            priced = [
                Priced(f"{point.layer}, {point.density:.0%} kept", point.modelled, point.gain.median)
                for point in points
            ]
            rows.append([name, *Accuracy.of(priced).cells])
    right = sum(point.gain.median * NOISE >= 1 for point in chosen)
    return [
        f"{sweep.processor}, gain over the dense kernel by {sweep.measure} ({sweep.command}):",
        "",
        table(["window", *HEADERS], rows),
        "",
        f"A sparse kernel was chosen at {len(chosen)} of {len(sweep.points)} points. At {right} it was no slower than "
        f"the dense one, but for {NOISE - 1:.0%}.",
        "",
    ]


def package_row(path: Path) -> list[str]:
    """The layers of a package: costs are times the median of time over cost."""
    package = open_package(path)
    result = Host().bench(package, 1, WARMUP, RUNS, profile=True)
    layers = package.target(Host().target).level(result.target).layers
    timed = [
        (time.report, time.report.choice.cost, time.seconds)
        for time in layer_times(result, layers)
        if time.report.choice
    ]
    unit = median(seconds / cost for _, cost, seconds in timed)
    total = sum(cost for _, cost, _ in timed) * unit / sum(seconds for *_, seconds in timed)
    accuracy = Accuracy.of([Priced(layer.layer, cost * unit, seconds) for layer, cost, seconds in timed])
    return [path.name, *accuracy.cells, f"{total:.2f}", f"{1e-9 / unit:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", type=Path, metavar="PACKAGE")
    options = parser.parse_args()
    if options.packages:
        rows = [package_row(path) for path in options.packages]
        print(table(["package", *HEADERS, "all layers, cost over measured", "cost per ns"], rows))
        return
    for sweep in load_sweeps(SWEEPS):
        print("\n".join(sweep_lines(sweep)))


if __name__ == "__main__":
    main()
