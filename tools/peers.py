"""Dense peers that run beside pcc in the same process, and the clock that is fair to both."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import numpy as np
import torch

Runner = Callable[[], object]

PAUSE = 0.05
"""Seconds before each run: threads of the one before may go on spinning for work for a while."""


def onnxruntime_runner(
    module: torch.nn.Module, image: np.ndarray, path: Path, threads: int
) -> Callable[[np.ndarray], np.ndarray]:
    """``module`` in ONNX Runtime with all its graph optimisations, as a function from one input array to the first
    output.

    The ONNX file is written to ``path`` by PyTorch's TorchScript exporter, the one that needs no further package.
    """
    import onnxruntime

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), (torch.from_numpy(image),), str(path), dynamo=False, opset_version=17)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: np.asarray(session.run(None, {name: x})[0])


def interleaved_medians(runners: Mapping[str, Runner], runs: int, warmup: int = 3) -> dict[str, float]:
    """Median seconds of each runner. They take turns, so that what disturbs the machine disturbs all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    for turn in range(warmup + runs):
        for name, runner in runners.items():
            sleep(PAUSE)
            start = perf_counter()
            runner()
            if turn >= warmup:
                times[name].append(perf_counter() - start)
    return {name: median(values) for name, values in times.items()}
