"""Measures trials: by the clock of this computer where it can execute the target's code, else by counting instructions
under QEMU.

Both go in pieces, and what each piece found is kept in pcc's cache until a calibration has ended: one that was
interrupted goes on there.
"""

import hashlib
import json
import os
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from pcc.cache import cache_root, writing_cache
from pcc.codegen.isa import isa_named
from pcc.codegen.kernel_cache import generation
from pcc.codegen.machine import Machine
from pcc.codegen.native import NativeKernels
from pcc.codegen.objects import compile_kernels
from pcc.codegen.plan_memory import PlanMemory
from pcc.codegen.program import Program, ProgramBuilder
from pcc.deploy.counting_qemu import Counted, count_package, missing
from pcc.errors import PccError
from pcc.files import write_atomically
from pcc.package import PackageSpec, TargetBuild, build_package, open_package
from pcc.progress import Progress
from pcc.scratch import temporary_folder
from pcc.target import Target, executes_here, target_named
from pcc.tune.program_runner import ProgramRunner, program_runner
from pcc.tune.trials import Trial

CYCLES_PER_SECOND = 3e9
"""Of the clock in which times are told: only ratios matter."""

ROUNDS = 15


def measurements_folder() -> Path:
    """Where they are kept."""
    return cache_root() / "calibration"


@dataclass
class Measurements:
    """What each trial took, by its key: a list of cycles, one for each round, or of one weighted count."""

    path: Path
    taken: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, target: Target, processor: str) -> "Measurements":
        """Those that an interrupted calibration left, by this pcc, for this target and processor."""
        digest = hashlib.sha256(f"{generation()}|{target}|{processor}".encode()).hexdigest()[:24]
        found = cls(measurements_folder() / f"{digest}.json")
        with suppress(OSError, ValueError):
            found.taken = json.loads(found.path.read_text(encoding="utf-8"))
        return found

    def cost(self, trial: Trial) -> float:
        """The least of all rounds: what disturbs only adds."""
        return min(self.taken[trial.key])

    @property
    def noise(self) -> float:
        """How far the median round of a schedule is above its least, as a share of it: the median over schedules."""
        return median(median(taken) / min(taken) for taken in self.taken.values()) - 1

    def save(self) -> None:
        with writing_cache():
            write_atomically(self.path, lambda path: path.write_text(json.dumps(self.taken), encoding="utf-8"))

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)


def measurable(target: Target) -> Target:
    """The target whose code is measured for a target: itself where this computer executes it, arm64 Linux where that is
    emulated. `PccError` where it can be neither timed nor counted."""
    if executes_here(target):
        return target
    if target.arch != "aarch64":
        raise PccError(
            f"{target.name}, {target.cpu}: this computer cannot execute its code, so it cannot be timed here"
        )
    if complaint := missing():
        raise PccError(complaint)
    return target_named("aarch64-linux", target.cpu)


def time_trials(
    trials: Sequence[Trial], target: Target, measurements: Measurements, progress: Progress, workers: int
) -> None:
    """Times all of them in turn, `ROUNDS` times, on one core, so that slow and fast phases of the computer meet all
    alike. Where some are new, older rounds, which others had without them, do not count."""
    done = min(len(measurements.taken.get(trial.key, ())) for trial in trials)
    if done >= ROUNDS:
        return
    if not done:
        measurements.taken.clear()
    progress(f"compiling {len(trials)} schedules")
    programs = [trial.program(isa_named(target.isa)) for trial in trials]
    kernels = {kernel.name: kernel for program in programs for kernel in program.kernels}
    native = NativeKernels(list(kernels.values()), target, workers)
    runs = [program_runner(program, native) for program in programs]
    with _pinned():
        for number in range(done + 1, ROUNDS + 1):
            progress(f"timing {len(trials)} schedules, round {number} of {ROUNDS}")
            found = [_time(run) * CYCLES_PER_SECOND for run in runs]
            for trial, cycles in zip(trials, found, strict=True):
                measurements.taken.setdefault(trial.key, []).append(cycles)
            measurements.save()


def time_ratios(base: Trial, trials: Sequence[Trial], target: Target, rounds: int, workers: int) -> list[float]:
    """How many times the time of ``base`` each takes: medians over rounds in which all run in turn on one core."""
    programs = [trial.program(isa_named(target.isa)) for trial in (base, *trials)]
    kernels = {kernel.name: kernel for program in programs for kernel in program.kernels}
    native = NativeKernels(list(kernels.values()), target, workers)
    runs = [program_runner(program, native) for program in programs]
    with _pinned():
        seconds = np.array([[_time(run) for run in runs] for _ in range(rounds)])
    return np.median(seconds[:, 1:] / seconds[:, :1], axis=0).tolist()


def _time(run: ProgramRunner) -> float:
    """Seconds of one run as the other layers of a network leave the computer: what it reads and writes is in the
    caches, its weights are behind the L2 cache, and the processor has foreseen other branches since. (Again and again
    by itself, a layer with many short lists is faster by a third: the processor knows where each ends.)"""
    memory = run.memory
    for values in memory.arrays.values():
        _touch(values)
    _touch(_OTHERS)
    for name, values in memory.arrays.items():
        if not memory.buffers[name].is_weight:
            _touch(values)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


_OTHERS = np.ones(8 << 20, np.uint8)
"""More than an L2 cache holds."""


def _touch(values: np.ndarray) -> None:
    """Reads a byte of every cache line."""
    values.view(np.uint8)[::64].max(initial=0)


@contextmanager
def _pinned() -> Generator[None]:
    """On one core: the last that this process may use, since the first one takes most interrupts."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def count_trials(
    trials: Sequence[Trial],
    target: Target,
    machine: Machine,
    measurements: Measurements,
    progress: Progress,
    workers: int,
) -> None:
    """Counts those that are not counted yet, all of a layer in one program."""
    missing = [trial for trial in trials if trial.key not in measurements.taken]
    for layer in dict.fromkeys(trial.layer for trial in missing):
        of_layer = [trial for trial in missing if trial.layer == layer]
        progress(f"counting {len(of_layer)} schedules of {layer}")
        for trial, count in zip(of_layer, weighted_counts(of_layer, target, machine, workers), strict=True):
            measurements.taken[trial.key] = [count]
        measurements.save()


def weighted_counts(trials: Sequence[Trial], target: Target, machine: Machine, workers: int) -> list[float]:
    """The instructions that each executes, multiply-adds weighted as the processor has units for them; all in one
    program."""
    b = ProgramBuilder("count", machine.isa)
    for place, trial in enumerate(trials):
        trial.emit(b, f"layer{place}")
    executed = count_program(b.build(), target, workers)
    return [
        executed[f"layer{place}"].total + (machine.multiply_add_weight - 1) * executed[f"layer{place}"].vfma
        for place in range(len(trials))
    ]


def count_program(program: Program, target: Target, workers: int = 1) -> dict[str, Counted]:
    """Executed instructions of every layer of a program for arm64 (memory not planned), on one thread. Raises
    `PccError` where QEMU or plugins are missing."""
    planned = PlanMemory()(program)
    objects = [kernel.object for kernel in compile_kernels(planned.kernels, target, workers)]
    with temporary_folder() as folder:
        build_package(PackageSpec(planned.name, [TargetBuild(target, planned, objects)]), folder / "package")
        return count_package(open_package(folder / "package"))
