"""Measures one network in all engines: agreement, rounds in which they take turns, then the best peers against pcc in
pairs."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from pcc.errors import PccError
from tools.bench_peers.engines import Engine
from tools.bench_peers.environments import Unavailable
from tools.bench_peers.machine import Machine, Watch
from tools.bench_peers.prepare import Prepared, compile_package
from tools.bench_peers.process import EngineFailed, WorkerProcess
from tools.bench_peers.ratios import paired_ratio
from tools.bench_peers.result import Duel, Timing

TURN = 0.5
"""Seconds of an engine's turn in a round, three runs at least, after two that warm the caches up."""
WARMUP = 2
DUEL_TURN = 0.2
LAYER_RUNS = 5


@dataclass(frozen=True)
class Entrant:
    """An engine with one of the network's two sets of weights."""

    engine: Engine
    prepared: Prepared

    @property
    def on_dense_weights(self) -> bool:
        return not self.prepared.network.pruned

    @property
    def dense(self) -> bool:
        return self.on_dense_weights or not self.engine.uses_zeros


@dataclass
class Comparison:
    """Engines that run, and why the others do not; a context manager that ends their processes."""

    machine: Machine
    timings: dict[str, Timing] = field(default_factory=dict)
    workers: dict[str, WorkerProcess] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)
    disturbance: float = 0.0
    """Part of the time, in the worst turn or round, that other cores worked or that the thread did not run."""
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> "Comparison":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def enter(self, name: str, title: str, entrant: Entrant) -> None:
        """Starts an engine and compares its output with PyTorch's; what fails is noted, and the others go on."""
        print(f"  {title}: loading", file=sys.stderr, flush=True)
        engine, prepared = entrant.engine, entrant.prepared
        try:
            if engine.name == "pcc":
                compile_package(prepared)
            interpreter = engine.environment.make() if engine.environment else Path(sys.executable)
            log = prepared.folder / "logs" / f"{engine.name}.txt"
            worker = self._stack.enter_context(start([interpreter], engine, prepared.folder, self.machine.pinned, log))
            about = worker.ask(do="load")
            error = disagreement(worker, prepared, engine.name)
        except (Unavailable, EngineFailed, PccError) as reason:
            self.not_run[name] = str(reason)
            print(f"  {title}: not run: {reason}", file=sys.stderr, flush=True)
            return
        self.workers[name] = worker
        self.timings[name] = Timing(
            engine=name,
            title=title,
            dense=entrant.dense,
            error=error,
            version=about["version"],
            evidence=about["evidence"],
        )

    def round(self, number: int) -> None:
        """A turn for every engine. Rounds start with different ones, so that nobody always comes after the same."""
        names = list(self.workers)
        first = number % max(1, len(names))
        watch = Watch(self.machine.pinned)
        for name in [*names[first:], *names[:first]]:
            times = self._turn(name, TURN)
            if times:
                self.timings[name].rounds.append(times)
        self.disturbance = max(self.disturbance, watch.others())

    def duel(self, name: str, pairs: int) -> Duel | None:
        """The engine against pcc: A B, B A, A B..., each turn's median one half of a pair. None if one of them
        fails."""
        times: dict[str, list[float]] = {name: [], "pcc": []}
        watch = Watch(self.machine.pinned)
        for pair in range(pairs):
            for engine in (name, "pcc") if pair % 2 == 0 else ("pcc", name):
                turn = self._turn(engine, DUEL_TURN)
                if not turn:
                    return None
                times[engine].append(median(turn))
        self.disturbance = max(self.disturbance, watch.others())
        return Duel(engine=name, ratio=paired_ratio(times[name], times["pcc"]))

    def layers(self) -> dict[str, dict[str, float]]:
        """Seconds of each layer in the engines that tell."""
        found: dict[str, dict[str, float]] = {}
        for name, worker in list(self.workers.items()):
            try:
                seconds: Mapping[str, float] | None = worker.ask(do="layers", runs=LAYER_RUNS)["layers"]
            except EngineFailed as reason:
                self._failed(name, reason)
                continue
            if seconds:
                found[name] = dict(seconds)
        return found

    def _turn(self, name: str, seconds: float) -> list[float]:
        """Times of one turn; none, from now on, for an engine that fails."""
        if name not in self.workers:
            return []
        try:
            answer = self.workers[name].ask(do="time", warmup=WARMUP, seconds=seconds)
            self.disturbance = max(self.disturbance, 1 - answer["processor"])
            return answer["seconds"]
        except EngineFailed as reason:
            self._failed(name, reason)
            return []

    def _failed(self, name: str, reason: EngineFailed) -> None:
        self.workers.pop(name).close()
        del self.timings[name]
        self.not_run[name] = str(reason)
        print(f"  {name}: stopped: {reason}", file=sys.stderr, flush=True)


def start(python: Sequence[str | Path], engine: Engine, folder: Path, core: int, log: Path) -> WorkerProcess:
    """The worker of an engine with a network's folder; ``python`` are the words that start its Python."""
    return WorkerProcess(
        [*python, "-m", "tools.bench_peers.worker", engine.adapter, folder, str(core)], log, engine.variables
    )


def disagreement(worker: WorkerProcess, prepared: Prepared, name: str) -> float:
    """The `difference` of an engine's output from PyTorch's in float64."""
    path = prepared.folder / f"output-{name}.npy"
    worker.ask(do="output", path=str(path))
    output = np.load(path)
    path.unlink()
    return difference(output, prepared.reference())


def difference(output: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, to the largest expected value; infinite where the sizes differ."""
    if output.size != expected.size:
        return float("inf")
    return float(np.abs(output.reshape(expected.shape) - expected).max() / np.abs(expected).max())
