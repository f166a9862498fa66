"""``python -m tools.never_slower``: times every layer of the zoo at many densities, dense and as pcc chooses, and
writes docs/performance.md.

``build`` only compiles, which takes minutes of all cores; ``measure`` after it takes one core of a quiet machine.
Points are saved as they are measured, so that a call goes on where the last one stopped. A point is measured again when
the machine code or the data of one of its kernels have changed.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from pcc.target import Target, target_named
from tools.bench_peers.machine import this_machine
from tools.bench_peers.ratios import Ratio
from tools.count_arm64.forms import TARGET
from tools.never_slower.built import DENSE, BuiltLayer, Variant, build, load_layers
from tools.never_slower.counted import counts
from tools.never_slower.points import zoo_cases
from tools.never_slower.result import INSTRUCTIONS, MOST_EMULATED_MACS, TIME, Point, Sweep, load_points
from tools.never_slower.timed import times
from tools.performance import SWEEPS, write_page

BUILT = Path("out/never_slower/built")
_SAME = Ratio(median=1, low=1, high=1, pairs=0)
"""Of the dense kernel to itself."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arm64", action="store_true", help="count the instructions of arm64 code under QEMU instead")
    parser.add_argument("stage", nargs="?", choices=("build", "measure"), help="do only this")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="stop measuring after so long; the next call goes on"
    )
    options = parser.parse_args()
    target = TARGET if options.arm64 else target_named("x86_64-linux", "native")
    folder, most = BUILT / target.cpu, MOST_EMULATED_MACS if options.arm64 else float("inf")
    if options.stage != "measure":
        cases = [case for case in zoo_cases() if case.macs <= most]
        build(cases, target, folder, workers=len(os.sched_getaffinity(0)))
    if options.stage == "build":
        return
    machine = this_machine()
    if not options.arm64:
        os.sched_setaffinity(0, {machine.pinned})
    sweep = Sweep(
        processor=target.cpu if options.arm64 else str(machine),
        measure=INSTRUCTIONS if options.arm64 else TIME,
        command="python -m tools.never_slower" + (" --arm64" if options.arm64 else ""),
    )
    if not (layers := load_layers(folder)):
        parser.error(f"these sources have built no layers in {folder}: build comes before measure")
    if left := measure(sweep, SWEEPS, layers, target, time.monotonic() + options.seconds):
        print(f"{left} points are left: call again", file=sys.stderr)
    write_page()


def measure(sweep: Sweep, saved: Path, layers: Sequence[tuple[Path, BuiltLayer]], target: Target, until: float) -> int:
    """Fills the sweep with what was saved and, as long as there is time, with what was not; saves it after each layer.
    How many points are left."""
    ratios = {point.digest: point.gain for point in load_points(saved, sweep.measure, sweep.processor)}
    missing = [
        (layer, [each for each in layer.variants if each.program != DENSE and each.digest not in ratios])
        for _, layer in layers
    ]
    todo = [
        (folder, layer, variants) for (folder, _), (layer, variants) in zip(layers, missing, strict=True) if variants
    ]
    for layer, variants, found in _counted(todo) if sweep.measure == INSTRUCTIONS else _timed(todo, target):
        for variant, ratio in zip(variants, found, strict=True):
            ratios[variant.digest] = ratio
            print(
                f"{layer.layer}, {variant.density:.0%}: {variant.family}, {ratio}, modelled {variant.modelled:.2f}",
                file=sys.stderr,
            )
        sweep.points = list(_points(layers, ratios))
        sweep.save(saved)
        if time.monotonic() > until:
            break
    sweep.points = list(_points(layers, ratios))
    sweep.save(saved)
    return sum(len(layer.variants) for _, layer in layers) - len(sweep.points)


Todo = tuple[Path, BuiltLayer, list[Variant]]
Measured = tuple[BuiltLayer, list[Variant], list[Ratio]]


def _timed(todo: Sequence[Todo], target: Target) -> Iterator[Measured]:
    for folder, layer, variants in todo:
        yield layer, variants, times(folder, variants, target)


def _counted(todo: Sequence[Todo]) -> Iterator[Measured]:
    """Some layers at once: counts do not depend on how busy the machine is."""
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        try:
            found = [pool.submit(counts, folder, variants) for folder, _, variants in todo]
            for (_, layer, variants), counted in zip(todo, found, strict=True):
                yield layer, variants, counted.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _points(layers: Sequence[tuple[Path, BuiltLayer]], ratios: Mapping[str, Ratio]) -> Iterator[Point]:
    """The points that are known."""
    for _, layer in layers:
        for variant in layer.variants:
            ratio = _SAME if variant.program == DENSE else ratios.get(variant.digest)
            if ratio is not None:
                yield Point(
                    layer=layer.layer, kernel=layer.kernel, gain=ratio, **variant.model_dump(exclude={"program"})
                )


if __name__ == "__main__":
    main()
