"""What a row gave: one JSON file in docs/results for each, from which the page is made."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

FOLDER = Path("docs/results")


class Result(BaseModel):
    """Figures of one run."""

    model_config = ConfigDict(extra="forbid")

    row: str
    command: str
    """That gives these figures again."""
    seed: int
    epochs: int
    """Of this row; those of the row it starts from come on top."""
    seconds: float
    """Of training, on the machine that ran it."""
    device: str = "cpu"
    """What trained it: ``cpu``, or a GPU's name."""
    dense_accuracy: float
    """Of the dense network that the rows of this network descend from."""
    accuracy: float
    weight_rate: float
    """Dense weights for each kept one, over the convolutions and linear layers of the whole network."""
    data_rate: float
    """Dense bytes for each byte of values, counted from the structures, without indices."""
    data_and_index_rate: float
    """The same with indices. No file is that small: checkpoints hold fp32."""
    mac_rate: float
    speedup: float | None = None
    """Latency of the dense network over that of the pruned one, both compiled by pcc, one thread; None: no kernel for
    the structure."""

    def save(self) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / f"{self.row}.json").write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load(row: str) -> Result | None:
    path = FOLDER / f"{row}.json"
    return Result.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None
