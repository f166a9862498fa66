"""Runs a program that may do anything: crash, print what nobody can read, or never stop printing."""

import os
import signal
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import IO

from pcc.errors import PccError

OUTPUT_BYTES = 64 << 20
"""Of each stream: far more than a profile of any network."""


@dataclass(frozen=True)
class Ended:
    """What a program printed, and how it ended: its exit status, or a signal's number as a negative one."""

    status: int
    output: bytes
    errors: bytes

    @property
    def complaint(self) -> str:
        """Why it failed, in one line that a terminal can show."""
        if self.status < 0:
            return f"the program was stopped by {_signal(-self.status)}"
        text = "".join(
            c if c.isprintable() else " " for c in self.errors.decode("utf-8", "replace").strip().rpartition("\n")[2]
        )
        return " ".join(text.split())[:500] or f"the program ended with status {self.status} and said nothing"


def _signal(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} ({signal.strsignal(number)})"
    except ValueError:
        return f"signal {number}"


def run_program(command: Sequence[str]) -> Ended:
    """Runs a command to its end. `PccError` if it prints more than `OUTPUT_BYTES`; OSError if it cannot be started."""
    with (
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
        ) as process,
        ThreadPoolExecutor(2) as threads,
    ):
        try:
            output, errors = threads.map(partial(_read, process), (process.stdout, process.stderr))
        except BaseException:
            _stop(process)
            raise
    if max(len(output), len(errors)) > OUTPUT_BYTES:
        raise PccError(f"{command[0]} printed more than {OUTPUT_BYTES >> 20} MiB and was stopped")
    return Ended(process.returncode, output, errors)


def _read(process: subprocess.Popen[bytes], stream: IO[bytes]) -> bytes:
    content = stream.read(OUTPUT_BYTES + 1)
    if len(content) > OUTPUT_BYTES:
        _stop(process)
    return content


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a program and what it started, which may hold its output open."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
