"""Counts one network in one engine."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import pcc
from pcc.deploy import Qemu
from pcc.deploy.counting_qemu import CPU, Counted, Counts, Interval, count_package, parse
from pcc.package import open_package
from pcc.target import target_named
from tools.bench_peers.compare import difference, disagreement, start
from tools.bench_peers.engines import Engine
from tools.bench_peers.prepare import Prepared
from tools.bench_peers.process import ROOT, EngineFailed
from tools.count_arm64.python import arm64_python, command

THREAD_CLOCK = 3
"""Linux's CLOCK_THREAD_CPUTIME_ID, which the worker reads before and after the run that counts."""


@dataclass(frozen=True)
class PccCount:
    """pcc's network for a Cortex-A76."""

    layers: dict[str, Counted]
    error: float
    """As `tools.bench_peers.compare.difference` has it."""
    assembly: list[tuple[str, Path]]
    """Name and assembly of each kernel."""


def count_pcc(prepared: Prepared, folder: Path, memory: bool, dtype: str = "fp32") -> PccCount:
    """Compiles the network into ``folder``, runs it, and counts."""
    kernels = assembly(prepared, folder, CPU, dtype)
    package = open_package(folder / CPU / "package")
    (output,) = Qemu(CPU).run(package, [np.load(prepared.folder / "input.npy")])
    return PccCount(count_package(package, memory), difference(output, prepared.reference()), kernels)


def assembly(prepared: Prepared, folder: Path, cpu: str, dtype: str = "fp32") -> list[tuple[str, Path]]:
    """Compiles the network for a processor, into a folder of that name; name and assembly of each kernel."""
    target = target_named("aarch64-linux", cpu)
    image = torch.from_numpy(np.load(prepared.folder / "input.npy"))
    package, dumped = folder / cpu / "package", folder / cpu / "ir"
    pcc.compile(
        prepared.network.module(),
        (image,),
        package,
        target=target,
        dump_ir=dumped,
        machine_profile="built-in",
        tuning_records="none",
        dtype=dtype,
        weight_dtype=prepared.network.weight_dtype if dtype == "fp32" else "fp32",
    )
    return [(path.stem, path) for path in sorted((folder / cpu / "ir" / target.name / "kernels").glob("*.s"))]


@dataclass(frozen=True)
class PeerCount:
    """A peer's arm64 wheel."""

    version: str
    error: float
    counts: Counts


def count_peer(engine: Engine, prepared: Prepared, memory: bool) -> PeerCount:
    """Runs a peer's arm64 wheel in an emulated Python; its second run counts, since the first one may pack weights.

    The files are converted by the x86-64 wheel of the same release. `EngineFailed` or `Unavailable` where it does not
    run.
    """
    assert engine.environment is not None
    core, logs = max(os.sched_getaffinity(0)), prepared.folder / "logs"
    with start([engine.environment.make()], engine, prepared.folder, core, logs / f"{engine.name}.txt") as worker:
        worker.ask(do="load")
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "counts"
        python = command(arm64_python(), written, memory, [ROOT])
        with start(python, engine, prepared.folder, core, logs / f"{engine.name}-arm64.txt") as worker:
            about = worker.ask(do="load")
            error = disagreement(worker, prepared, engine.name)
            worker.ask(do="mark")
            return PeerCount(about["version"], error, marked(parse(written.read_text())))


def marked(intervals: Sequence[Interval]) -> Counts:
    """The counts between the last two readings of the thread's clock; the engine may read others meanwhile."""
    readings = [place for place, interval in enumerate(intervals) if interval.clock == THREAD_CLOCK]
    if len(readings) < 2:
        raise EngineFailed("the thread's clock was not read twice: does this C library read it without a system call?")
    return sum((interval.counts for interval in intervals[readings[-2] + 1 : readings[-1] + 1]), Counts())
