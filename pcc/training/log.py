"""What a run says about itself: a CSV row and TensorBoard scalars for each epoch."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from pcc.files import write_atomically, writing
from pcc.training.folder import BOARD, LOG

Row = Mapping[str, float | str]


class Log:
    """``log.csv`` and ``tensorboard/`` in a folder. ``rows`` are those that a run which goes on has already logged: no
    epoch appears twice."""

    def __init__(self, folder: Path, rows: Sequence[Row] = ()) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.rows = list(rows)
        self._file = folder / LOG
        with writing(folder / BOARD):
            self._board = SummaryWriter(str(folder / BOARD), purge_step=len(self.rows))

    def add(self, row: Row) -> None:
        """One epoch; columns may differ between stages."""
        self.rows.append(row)
        with writing(self._file):
            write_atomically(self._file, self._write)
        for name, value in row.items():
            if isinstance(value, int | float):
                self._board.add_scalar(name, value, len(self.rows) - 1)

    def _write(self, path: Path) -> None:
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)

    def close(self) -> None:
        self._board.close()
