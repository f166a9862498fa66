"""What the sweep found, as a file."""

from pathlib import Path

from pydantic import BaseModel

from tools.bench_peers.ratios import Ratio

NOISE = 1.03
"""How many times longer a kernel may seem to take that takes as long."""

TIME, INSTRUCTIONS = "time", "instructions"

MOST_EMULATED_MACS = 60_000_000
"""Dense layers of more multiply-accumulates are left out where instructions are counted: emulation is slow."""


class Point(BaseModel):
    """A layer at a density: how many times longer the dense kernel takes than the chosen one."""

    layer: str
    kernel: int
    density: float
    family: str
    """Of the chosen kernel."""
    schedule: str
    modelled: float
    """The gain that the cost model sees."""
    gain: Ratio
    """Of no width where instructions were counted."""
    digest: str
    """Of the machine code and the data of both kernels."""

    @property
    def is_slower(self) -> bool:
        """Whether the chosen kernel takes longer than the dense one, by more than noise."""
        return self.gain.median < 1 / NOISE and self.gain.high < 1


class Sweep(BaseModel):
    """All points of a processor."""

    processor: str
    measure: str
    """`TIME` or `INSTRUCTIONS`."""
    command: str
    points: list[Point] = []

    def save(self, folder: Path) -> None:
        """A line for each point."""
        folder.mkdir(parents=True, exist_ok=True)
        head = self.model_dump_json(exclude={"points"}).removesuffix("}")
        points = ",\n".join(point.model_dump_json() for point in self.points)
        (folder / f"{self.measure}.json").write_text(f'{head},"points":[\n{points}\n]}}\n', encoding="utf-8")


def load_sweeps(folder: Path) -> list[Sweep]:
    """The sweeps that lie there: times first."""
    return [
        Sweep.model_validate_json(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.json"), reverse=True)
    ]


def load_points(folder: Path, measure: str, processor: str) -> list[Point]:
    """What was measured before on that processor."""
    saved = [sweep for sweep in load_sweeps(folder) if (sweep.measure, sweep.processor) == (measure, processor)]
    return [point for sweep in saved for point in sweep.points]
