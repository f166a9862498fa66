"""What a run says about itself: a CSV row and TensorBoard scalars for each epoch."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

Row = Mapping[str, float | str]


class Log:
    """``log.csv`` and ``tensorboard/`` in a folder. Rows of a run that goes on are written again, so no epoch appears twice."""

    def __init__(self, folder: Path, rows: Sequence[Row] = ()) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.rows: list[Row] = []
        self._file = folder / "log.csv"
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=len(rows))
        for row in rows:
            self.add(row, board=False)

    def add(self, row: Row, board: bool = True) -> None:
        """One epoch; columns may differ between stages."""
        self.rows.append(row)
        columns = list(dict.fromkeys(name for one in self.rows for name in one))
        with self._file.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        if board:
            for name, value in row.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(name, value, len(self.rows) - 1)

    def close(self) -> None:
        self._board.close()
