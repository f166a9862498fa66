"""What a run says about itself: a CSV row and TensorBoard scalars for each epoch."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from pcc.errors import PccError
from pcc.files import read_limited, save_file
from pcc.training.board import Board
from pcc.training.folder import BOARD, LOG

Row = Mapping[str, float | str]

FIRST_COLUMNS = ("stage", "accuracy", "sparsity", "seconds")
"""Those of the first row, the network as it came in: what tells the log of a run from other tables."""
MOST_BYTES = 256 << 20


class Log:
    """``log.csv`` and ``tensorboard/`` in a folder. ``rows`` are those that a run which goes on has already logged: no
    epoch appears twice."""

    def __init__(self, folder: Path, rows: Sequence[Row] = ()) -> None:
        self.rows = list(rows)
        self._file = folder / LOG
        save_file(self._file, self._write)  # at once: it says that the folder is a run's
        self._board = Board(folder / BOARD, len(self.rows))

    def add(self, row: Row) -> None:
        """One epoch; columns may differ between stages."""
        self.rows.append(row)
        save_file(self._file, self._write)
        for name, value in row.items():
            if isinstance(value, int | float):
                self._board.add(name, value, len(self.rows) - 1)

    def _write(self, path: Path) -> None:
        columns = list(dict.fromkeys([*FIRST_COLUMNS, *(name for row in self.rows for name in row)]))
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)

    def close(self) -> None:
        self._board.close()


def logged_seconds(path: Path) -> list[float] | None:
    """What each row of a run's log took; None for a file that is no log of a run."""
    try:
        reader = csv.DictReader(read_limited(path, "log", MOST_BYTES).decode().splitlines())
        if tuple(reader.fieldnames or ())[: len(FIRST_COLUMNS)] != FIRST_COLUMNS:
            return None
        return [float(row["seconds"]) for row in reader]
    except (PccError, UnicodeDecodeError, csv.Error, TypeError, ValueError):
        return None
