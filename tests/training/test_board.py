"""Events for TensorBoard are whole or not there."""

import io
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pcc.errors import PccError
from pcc.training.board import Board


def scalars(folder: Path) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("loss")]


def test_tensorboard_reads_it(tmp_path: Path) -> None:
    first = Board(tmp_path / "board", 0)
    for step in range(3):
        first.add("loss", 2.0 - step, step)
    first.close()
    second = Board(tmp_path / "board", 1)  # a run that goes on after the first epoch
    second.add("loss", 0.5, 1)
    second.close()
    assert scalars(tmp_path / "board") == [(0, 2.0), (1, 0.5)]


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(tmp_path / "board", 0)
    board.add("loss", 2.0, 0)
    (file,) = (tmp_path / "board").iterdir()
    whole = file.read_bytes()

    class Full(io.FileIO):
        """Takes a part of what is written to it, then nothing."""

        room = 10

        def write(self, data: object, /) -> int:
            if not self.room:
                raise OSError(28, "No space left on device")
            written, self.room = super().write(bytes(data)[: self.room]), 0  # type: ignore[call-overload]
            return written

    board.close()
    monkeypatch.setattr(board, "_file", Full(file, "ab"))
    with pytest.raises(PccError, match=r"cannot write .*events.out.*: No space left on device"):
        board.add("loss", 1.0, 1)
    board.close()
    assert file.read_bytes() == whole
    assert scalars(tmp_path / "board") == [(0, 2.0)]
