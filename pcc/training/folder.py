"""The folder of a run: what lies there under which name, and how it is written, complete or not at all."""

from pathlib import Path

from pcc.files import writing

CHECKPOINT = "model.safetensors"
"""The compressed network, at the end of a run: what ``pcc compile --weights`` takes."""
REPORT = "report.json"
LOG = "log.csv"
BOARD = "tensorboard"
RESUME = "resume.pt"


def begin(folder: Path) -> None:
    """Makes the folder and removes the log of an earlier run and what it left to resume; its checkpoint and report stay
    until there are new ones."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for left in (folder / LOG, folder / RESUME, *(folder / BOARD).glob("events.out.tfevents.*")):
            left.unlink(missing_ok=True)
