"""The worker process: one engine with one network. It runs in the engine's own environment, needs the standard library
and NumPy, and Python 3.10.

``python -m tools.bench_peers.worker MODULE FOLDER CORE`` takes the module's class ``Adapter``, reads requests from
standard input and writes answers to standard output, a JSON object a line. What engines print goes to standard error.

    {"do": "load"}                               converts (once) and loads the network, and feeds it: {"version": ...,
    "evidence": {...}} {"do": "time", "warmup": 2, "seconds": 0.5}  runs it for so long: {"seconds": [...], "processor":
    ...} {"do": "mark"}                               runs it once between two readings of the thread's clock, for who
    watches system calls: {} {"do": "output", "path": ...}                runs it and saves the output as .npy: {}
    {"do": "layers", "runs": 5}                  times its layers: {"layers": {name: seconds}, or null where the engine
    does not say}

What goes wrong is answered as {"error": one line}.
"""

import importlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from time import perf_counter, process_time, thread_time
from typing import Any, TextIO

import numpy as np

from tools.bench_peers.adapters.adapter import Adapter

FEWEST, MOST = 3, 100
"""Timed runs, however long or short one is."""


class Worker:
    """What a process answers to requests."""

    def __init__(self, adapter: Adapter, image: np.ndarray) -> None:
        self.adapter = adapter
        self.image = image

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        arguments = dict(request)
        action: Callable[..., dict[str, Any]] = getattr(self, f"do_{arguments.pop('do')}")
        return action(**arguments)

    def do_load(self) -> dict[str, Any]:
        if not self.adapter.converted.is_dir():
            _convert(self.adapter)
        self.adapter.load()
        self.adapter.feed(self.image)
        self.adapter.run()
        return {"version": self.adapter.version(), "evidence": self.adapter.evidence()}

    def do_time(self, warmup: int, seconds: float) -> dict[str, Any]:
        for _ in range(warmup):
            self.adapter.run()
        times: list[float] = []
        processor, begin = process_time(), perf_counter()
        while len(times) < FEWEST or (len(times) < MOST and sum(times) < seconds):
            start = perf_counter()
            self.adapter.run()
            times.append(perf_counter() - start)
        return {"seconds": times, "processor": (process_time() - processor) / (perf_counter() - begin)}

    def do_mark(self) -> dict[str, Any]:
        thread_time()
        self.adapter.run()
        thread_time()
        return {}

    def do_output(self, path: str) -> dict[str, Any]:
        np.save(path, self.adapter.output(self.adapter.run()))
        return {}

    def do_layers(self, runs: int) -> dict[str, Any]:
        return {"layers": self.adapter.layers(runs)}


def _convert(adapter: Adapter) -> None:
    """Converts into a folder that has its name only when it is finished."""
    unfinished = adapter.converted.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    adapter.convert(unfinished)
    unfinished.rename(adapter.converted)


def serve(worker: Worker, requests: Iterable[str], answers: TextIO) -> None:
    """Answers requests until there are no more."""
    for line in requests:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:  # whatever an engine raises is an answer to who asked
            words = str(error).strip().splitlines() or [""]
            answer = {"error": f"{type(error).__name__}: {words[0]}"}
        print(json.dumps(answer), file=answers, flush=True)


def main() -> None:
    name, folder, core = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # engines print, some when they are imported: not among the answers
    os.sched_setaffinity(0, {core})  # before the engine counts processors
    module = importlib.import_module(name)
    worker = Worker(
        module.Adapter(folder, folder / "converted" / name.rpartition(".")[2]), np.load(folder / "input.npy")
    )
    serve(worker, sys.stdin, answers)


if __name__ == "__main__":
    main()
