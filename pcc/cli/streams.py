"""Standard output and error as they may be: a pipe whose reader has gone, a full disk, closed from the start."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Generator


class OutputFailed(Exception):
    """Standard output takes no more."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror or str(error))
        self.reader_gone = error.errno == errno.EPIPE


class _Output(io.TextIOWrapper):
    """Standard output whose failures are told from those of other files. What its encoding has no sign for is written
    as an escape."""

    def write(self, text: str, /) -> int:
        with _failures_named():
            return super().write(text)

    def flush(self) -> None:
        with _failures_named():
            super().flush()


@contextlib.contextmanager
def _failures_named() -> Generator[None]:
    try:
        yield
    except OSError as error:
        silence(1)
        raise OutputFailed(error) from None


@contextlib.contextmanager
def guarded() -> Generator[None]:
    """Inside the block standard output raises `OutputFailed`. To be entered before anything is opened: where standard
    streams were closed, their numbers are taken, so that no file of ours gets them and a child's output with them;
    writing to standard output then fails as it should."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number < 2 else os.O_WRONLY)  # takes the lowest number that is free
    sys.stdout = sys.stdout or open(1, "w", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)
    before = sys.stdout
    sys.stdout = output = _Output(
        before.buffer, encoding=before.encoding, errors="backslashreplace", line_buffering=bool(before.line_buffering)
    )
    try:
        yield
    finally:
        sys.stdout = before
        with contextlib.suppress(OutputFailed):
            output.detach()


def say(line: str) -> None:
    """Writes a line to standard error; where even that cannot be written, nothing is left but the exit status."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        silence(2)


def silence(number: int) -> None:
    """What is still to be written to a standard stream goes nowhere: the interpreter writes its buffers when it
    ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
