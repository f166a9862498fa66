"""Scalars for TensorBoard, in an events file of its own format.

TensorBoard's own writer does it in a thread, whose errors come late and with a traceback: this one writes at once, and
a scalar is in the file or it is not.
"""

import io
import os
import socket
from itertools import count
from pathlib import Path
from time import time
from typing import Any

from pcc.files import writing
from pcc.training.folder import EVENTS

_numbers = count()
"""Of the files of this process: two may begin in the same second."""


class Board:
    """The events of a run from its epoch ``step`` on: TensorBoard shows none of earlier files from there on. `PccError`
    for what cannot be written."""

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / f"{EVENTS}{int(time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("xb", buffering=0)
        try:
            self._write(file_version="brain.Event:2")
            self._write(step=step, session_log=_messages().SessionLog(status=_messages().SessionLog.START))
        except BaseException:
            self.close()
            raise

    def add(self, name: str, value: float, step: int) -> None:
        from torch.utils.tensorboard.summary import scalar

        self._write(step=step, summary=scalar(name, value))

    def close(self) -> None:
        self._file.close()

    def _write(self, **fields: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        RecordWriter(record).write(_messages().Event(wall_time=time(), **fields).SerializeToString())
        whole, rest = self._file.tell(), record.getvalue()
        with writing(self._path):
            try:
                while rest:  # a disk that is nearly full takes a part first
                    rest = rest[self._file.write(rest) :]
            except OSError:
                self._file.truncate(whole)
                raise


def _messages() -> Any:
    """TensorBoard's module of event messages, whose classes are made when it is imported."""
    from tensorboard.compat.proto import event_pb2

    return event_pb2
