"""The folder of a run: what lies there under which name, how it is begun, and what is no run's and stays."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pcc.files import writing

CHECKPOINT = "model.safetensors"
"""The compressed network, at the end of a run: what ``pcc compile --weights`` takes."""
REPORT = "report.json"
LOG = "log.csv"
BOARD = "tensorboard"
EVENTS = "events.out.tfevents."
"""What names of TensorBoard's files begin with."""
RESUME = "resume.pt"


def begin(folder: Path) -> list[Path]:
    """Makes the folder and removes the log of an earlier run and what it left to resume; its checkpoint and report stay
    until there are new ones. Gives the folders that were not there before, the innermost first."""
    with writing(folder):
        missing = [each for each in (folder / BOARD, folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for left in _of_a_run(folder):
            left.unlink(missing_ok=True)
    return missing


def withdraw(folder: Path, made: Sequence[Path]) -> None:
    """After `begin`, where the run ended before anything came of it: removes what it wrote, and the folders ``made``
    that are empty then."""
    for left in _of_a_run(folder):
        with suppress(OSError):
            left.unlink()
    for each in made:
        with suppress(OSError):
            each.rmdir()


def _of_a_run(folder: Path) -> list[Path]:
    return [folder / LOG, folder / RESUME, *(folder / BOARD).glob(f"{EVENTS}*")]
