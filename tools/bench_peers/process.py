"""The parent's side of a worker: starts it, asks, and says in one line how it died."""

import json
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tools.bench_peers.environments import last_error

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 1200.0
"""Seconds until an answer that does not come is given up: converting may take minutes."""


class EngineFailed(Exception):
    """What an engine could not do, as one line."""


class WorkerProcess:
    """A running worker. A context manager: it ends with the block."""

    def __init__(self, command: Sequence[str | Path], log: Path, variables: Mapping[str, str] | None = None) -> None:
        """``log`` takes what the engine prints; ``variables`` are added to the environment."""
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, **(variables or {}), "PYTHONPATH": str(ROOT)}
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
                cwd=ROOT,
            )

    def ask(self, **request: Any) -> dict[str, Any]:
        """The worker's answer. `EngineFailed` if it is an error, or none comes."""
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        try:
            requests.write(json.dumps(request) + "\n")
            requests.flush()
        except BrokenPipeError:
            raise EngineFailed(self._end()) from None
        ready, _, _ = select.select([answers], [], [], PATIENCE)
        if not ready:
            self.close()
            raise EngineFailed(f"no answer to '{request['do']}' in {PATIENCE:.0f} seconds")
        line = answers.readline()
        if not line:
            raise EngineFailed(self._end())
        answer = json.loads(line)
        if "error" in answer:
            raise EngineFailed(answer["error"])
        return answer

    def close(self) -> None:
        """Ends the worker. May be called twice."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end(self) -> str:
        """How the worker ended."""
        status = self._process.wait()
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
        return f"the worker {how}: {last_error(self._log.read_text(errors='replace'))}"
