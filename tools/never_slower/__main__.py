"""``python -m tools.never_slower``: times every layer of the zoo at many densities, dense and as pcc chooses, and writes docs/performance.md."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

from pcc.codegen.machine import machine_of
from pcc.codegen.program import ProgramBuilder
from pcc.target import Target, target_named
from pcc.tune.layer_runner import layer_runners
from pcc.tune.layers import Case
from pcc.tune.measure import count_program
from tools.bench_peers.machine import this_machine
from tools.bench_peers.ratios import Ratio, paired_ratio
from tools.count_arm64.forms import MACHINE, TARGET
from tools.never_slower.points import DENSITIES, Chosen, choices, zoo_cases
from tools.never_slower.result import Point, Sweep
from tools.performance import SWEEPS, write_page

PAIRS, PAIRS_IN_DOUBT = 3, 21
SECONDS_OF_A_PAIR = 0.01
"""A pair runs both kernels for as long at least: single runs of small layers are all noise."""

MOST_EMULATED_MACS = 60_000_000
"""Larger layers are left out under emulation."""


def timed_points(target: Target, cases: list[Case]) -> Iterator[Point]:
    """Times on this computer, one thread."""
    machine = machine_of(target)
    for case in cases:
        for density in DENSITIES:
            dense, chosen = choices(case, density, machine)
            ratio = Ratio(median=1, low=1, high=1, pairs=0)
            if chosen.family.name != dense.family.name:
                run_dense, run_chosen = layer_runners([partial(kernel.emit, case=case, name="conv") for kernel in (dense, chosen)], target)
                ratio = _compare(run_dense, run_chosen, PAIRS)
                if ratio.median < 1:
                    ratio = _compare(run_dense, run_chosen, PAIRS_IN_DOUBT)
            yield _point(case, density, chosen, ratio)


def counted_points(cases: list[Case]) -> Iterator[Point]:
    """Instructions under emulation; one program for all densities of a layer."""
    for case in cases:
        if case.macs > MOST_EMULATED_MACS:
            continue
        b, chosen = ProgramBuilder("sweep", MACHINE.isa), []
        for place, density in enumerate(DENSITIES):
            dense, best = choices(case, density, MACHINE)
            if not place:
                dense.emit(b, case, "dense")
            if best.family.name != dense.family.name:
                best.emit(b, case, f"chosen{place}")
            chosen.append(best)
        counted = count_program(b.build(), TARGET)
        for place, density in enumerate(DENSITIES):
            name = f"chosen{place}"
            gain = counted["dense"].total / counted[name].total if name in counted else 1.0
            yield _point(case, density, chosen[place], Ratio(median=gain, low=gain, high=gain, pairs=1))


def _point(case: Case, density: float, chosen: Chosen, gain: Ratio) -> Point:
    return Point(layer=str(case), kernel=case.kernel, density=density, family=chosen.family.name, gain=gain.median, low=gain.low, high=gain.high)


def _compare(dense: Callable[[], None], chosen: Callable[[], None], pairs: int) -> Ratio:
    """How many times longer ``dense`` takes, by pairs A B, B A, ..."""
    times: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            times[which].append(_time((dense, chosen)[which]))
    return paired_ratio(*times)


def _time(run: Callable[[], None]) -> float:
    run()  # for the caches
    runs, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < SECONDS_OF_A_PAIR / 2 or not runs:
        run()
        runs += 1
    return elapsed / runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arm64", action="store_true", help="count the instructions of arm64 code under QEMU instead")
    options = parser.parse_args()
    cases, machine = zoo_cases(), this_machine()
    if not options.arm64:
        os.sched_setaffinity(0, {machine.pinned})
    points = []
    for point in counted_points(cases) if options.arm64 else timed_points(target_named("x86_64-linux", "native"), cases):
        points.append(point)
        print(f"{point.layer}, {point.density:.0%}: {point.family}, {point.gain:.2f}", file=sys.stderr)
    command = "python -m tools.never_slower" + (" --arm64" if options.arm64 else "")
    measure = "instructions" if options.arm64 else "time"
    Sweep(processor=TARGET.cpu if options.arm64 else str(machine), measure=measure, command=command, points=points).save(SWEEPS)
    write_page()


if __name__ == "__main__":
    main()
