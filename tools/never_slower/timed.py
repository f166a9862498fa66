"""Times built layers on this computer, one thread."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pcc.codegen.native import NativeKernels
from pcc.target import Target
from pcc.tune.program_runner import program_runner
from tools.bench_peers.ratios import Ratio, paired_ratio
from tools.never_slower.built import DENSE, Variant, load_program

PAIRS, PAIRS_IN_DOUBT = 3, 21
MOST_APART = 1.1
"""How far few pairs may lie apart: more of them are timed where something else runs, or where the chosen kernel seems
to be slower."""
SECONDS_OF_A_PAIR = 0.01
"""A pair runs both kernels for as long at least: single runs of small layers are all noise."""


def times(folder: Path, variants: Sequence[Variant], target: Target) -> list[Ratio]:
    """How many times longer the dense kernel takes than each variant."""
    programs = {name: load_program(folder, name) for name in (DENSE, *(variant.program for variant in variants))}
    kernels = {kernel.name: kernel for program in programs.values() for kernel in program.kernels}
    native = NativeKernels(list(kernels.values()), target)
    dense = program_runner(programs[DENSE], native)
    return [_ratio(dense, program_runner(programs[variant.program], native)) for variant in variants]


def _ratio(dense: Callable[[], None], chosen: Callable[[], None]) -> Ratio:
    ratio = _compare(dense, chosen, PAIRS)
    is_clear = ratio.median >= 1 and ratio.high < MOST_APART * ratio.low
    return ratio if is_clear else _compare(dense, chosen, PAIRS_IN_DOUBT)


def _compare(dense: Callable[[], None], chosen: Callable[[], None], pairs: int) -> Ratio:
    """How many times longer ``dense`` takes, by pairs A B, B A, ..."""
    taken: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            taken[which].append(_time((dense, chosen)[which]))
    return paired_ratio(*taken)


def _time(run: Callable[[], None]) -> float:
    run()  # for the caches
    runs, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < SECONDS_OF_A_PAIR / 2 or not runs:
        run()
        runs += 1
    return elapsed / runs
