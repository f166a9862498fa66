"""Worker and parent, with a toy engine: answers, errors, deaths."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tools.bench_peers.compare import start
from tools.bench_peers.engines import Engine
from tools.bench_peers.process import EngineFailed, WorkerProcess

TOY = Engine("toy", "Toy", "tests.tools.bench_peers.toy_engine")


def _worker(folder: Path, image: np.ndarray) -> WorkerProcess:
    np.save(folder / "input.npy", image)
    return start([sys.executable], TOY, folder, max(os.sched_getaffinity(0)), folder / "log.txt")


def test_a_worker_answers(tmp_path: Path) -> None:
    image = np.ones((1, 3, 4, 4), np.float32)
    with _worker(tmp_path, image) as worker:
        assert worker.ask(do="load") == {"version": "1.2", "evidence": {"factor": 2}}
        timed = worker.ask(do="time", warmup=1, seconds=0.0)
        assert len(timed["seconds"]) == 3
        assert all(seconds > 0 for seconds in timed["seconds"])
        worker.ask(do="output", path=str(tmp_path / "output.npy"))
        assert np.array_equal(np.load(tmp_path / "output.npy"), 2 * image)
        assert not list(tmp_path.glob("converted/*.unfinished"))
    assert "engines print" in (tmp_path / "log.txt").read_text()


def test_what_fails_is_one_line(tmp_path: Path) -> None:
    with _worker(tmp_path, np.full((1, 1, 1, 1), -1, np.float32)) as worker:
        with pytest.raises(EngineFailed, match=r"^RuntimeError: negative$"):
            worker.ask(do="load")
        assert worker.ask(do="time", warmup=0, seconds=0.0)  # it goes on
        with pytest.raises(EngineFailed, match=r"^the worker was ended by SIGABRT: out of memory$"):
            worker.ask(do="layers", runs=1)
        with pytest.raises(EngineFailed, match="SIGABRT"):
            worker.ask(do="load")
