"""The folder of a run: what lies there under which name, and how it is written, complete or not at all."""

from collections.abc import Iterable
from pathlib import Path

from pcc.errors import PccError
from pcc.files import writing

CHECKPOINT = "model.safetensors"
"""The compressed network, at the end of a run: what ``pcc compile --weights`` takes."""
REPORT = "report.json"
LOG = "log.csv"
BOARD = "tensorboard"
RESUME = "resume.pt"


def check_apart(written: Iterable[Path], read: Iterable[str | None]) -> None:
    """`PccError` where a file that a run writes is one that it reads, a ``FILE`` or ``FILE:KEY``."""
    files = [Path(part) for text in read if text for part in (text, text.rpartition(":")[0]) if Path(part).is_file()]
    for result in written:
        if any(result.exists() and result.samefile(file) for file in files):
            raise PccError(f"{result} would be written over: choose another folder for the results")


def begin(folder: Path) -> None:
    """Makes the folder and removes the log of an earlier run and what it left to resume; its checkpoint and report stay
    until there are new ones."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for left in (folder / LOG, folder / RESUME, *(folder / BOARD).glob("events.out.tfevents.*")):
            left.unlink(missing_ok=True)
