"""What was measured, as JSON: a file for each processor and network, below a folder that git ignores."""

from collections.abc import Iterable
from pathlib import Path
from statistics import median

from pydantic import BaseModel, ConfigDict

from tools.bench_peers.machine import Machine
from tools.bench_peers.networks import LayerMacs
from tools.bench_peers.onnx_file import attribute
from tools.bench_peers.ratios import Ratio, paired_ratio

AGREES = 1e-2
"""Largest error, to the largest output in float64, of an engine that computes the same: Winograd's in fp32 come to some
1e-3."""


class Timing(BaseModel):
    """One engine on one network."""

    model_config = ConfigDict(ser_json_inf_nan="strings")

    engine: str
    title: str
    version: str
    dense: bool
    """Whether it gains nothing from zeros: a dense engine, or dense weights."""
    evidence: dict[str, float] = {}
    error: float
    """Largest difference from PyTorch in float64, to the largest output."""
    rounds: list[list[float]] = []
    """Seconds of each run, round by round."""

    @property
    def agrees(self) -> bool:
        return self.error <= AGREES

    @property
    def minimum(self) -> float:
        return min(min(times) for times in self.rounds)

    @property
    def median(self) -> float:
        return median(seconds for times in self.rounds for seconds in times)

    def to(self, other: "Timing") -> Ratio:
        """How many times longer this takes than the other: medians of the same round are pairs."""
        return paired_ratio(*([median(times) for times in timing.rounds] for timing in (self, other)))


class Duel(BaseModel):
    """An engine against pcc, turn and turn about."""

    engine: str
    ratio: Ratio
    """The engine's time over pcc's."""


class Result(BaseModel):
    """One network on one machine."""

    network: str
    summary: str
    command: str
    machine: Machine
    peak: float
    """Multiply-accumulates per second that the core can do at best."""
    macs: dict[str, LayerMacs]
    """Of the layers by their paths."""
    timings: list[Timing]
    not_run: dict[str, str]
    """Engine -> why it has no timing."""
    duels: list[Duel] = []
    layers: dict[str, dict[str, float]] = {}
    """Engine -> layer -> seconds, of the engines that tell."""
    disturbance: float
    """Part of the time that other work took, as `tools.bench_peers.compare.Comparison` has it."""

    @property
    def dense_macs(self) -> int:
        return sum(layer.dense for layer in self.macs.values())

    @property
    def kept_macs(self) -> int:
        return sum(layer.kept for layer in self.macs.values())

    def shares(self, engine: str = "pcc") -> dict[str, float]:
        """Layer -> the share of the core's peak that its kept multiply-accumulates reach in the engine."""
        seconds = attribute(self.layers.get(engine, {}), list(self.macs))
        return {path: self.macs[path].kept / taken / self.peak for path, taken in seconds.items() if taken}

    def timing(self, engine: str) -> Timing | None:
        return next((timing for timing in self.timings if timing.engine == engine), None)

    def best(self, dense: bool) -> Timing | None:
        """The fastest peer that agrees with PyTorch, dense or not."""
        peers = [
            timing
            for timing in self.timings
            if timing.engine != "pcc" and timing.dense == dense and timing.agrees and timing.rounds
        ]
        return min(peers, key=lambda timing: timing.minimum, default=None)

    def save(self, root: Path) -> Path:
        path = root / self.machine.slug / f"{self.network.replace(':', '-')}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return path


def load_results(root: Path) -> list[Result]:
    return [Result.model_validate_json(path.read_text(encoding="utf-8")) for path in sorted(root.glob("*/*.json"))]


def by_processor(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results of each processor."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(str(result.machine), []).append(result)
    return found
