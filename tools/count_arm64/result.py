"""What was counted, as JSON: a file for each network, below a folder that git ignores."""

from pathlib import Path

from pydantic import BaseModel

from pcc.deploy.counting_qemu import Counts
from tools.count_arm64.mca import Loop


class Executed(BaseModel):
    """Counts of one run of a network or a layer."""

    instructions: dict[str, int]
    memory: dict[str, int] = {}

    @property
    def total(self) -> int:
        return sum(self.instructions.values())

    @classmethod
    def of(cls, counts: Counts) -> "Executed":
        return cls(instructions=dict(counts.instructions), memory=dict(counts.memory))


class EngineCount(BaseModel):
    """One engine's run of a network."""

    engine: str
    title: str
    version: str
    error: float
    """Largest difference from PyTorch in float64, to the largest output."""
    executed: Executed


class LayerCount(BaseModel):
    """One of pcc's layers."""

    layer: str
    kernel: str
    executed: Executed


class CountResult(BaseModel):
    """One network."""

    network: str
    summary: str
    command: str
    dense_macs: int
    kept_macs: int
    engines: list[EngineCount] = []
    not_run: dict[str, str] = {}
    """What is missing, and why."""
    layers: list[LayerCount] = []
    loops: list[Loop] = []

    def save(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        path = root / f"{self.network.replace(':', '-')}.json"
        path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


def load_counts(root: Path) -> list[CountResult]:
    return [CountResult.model_validate_json(path.read_text(encoding="utf-8")) for path in sorted(root.glob("*.json"))]
