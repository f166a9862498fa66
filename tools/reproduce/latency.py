"""What a structure gains once it is compiled: dense and pruned network side by side."""

from pathlib import Path

import numpy as np
import torch

import pcc
from pcc.package import open_package
from tools.peers import interleaved_medians
from tools.reproduce.rows import Row, input_shape, opened

RUNS = 101


def speedup(row: Row, dense: Path, pruned: Path, folder: Path) -> float | None:
    """Median latency of a row's network with the dense checkpoint over that with the pruned one, one thread; None where
    its kernels do no less."""
    models, macs, shape = {}, {}, input_shape(row)
    for name, checkpoint in (("dense", dense), ("pruned", pruned)):
        report = pcc.compile(
            opened(row, str(checkpoint)),
            [torch.zeros(shape)],
            folder / name,
            name="net",
            machine_profile="built-in",
            tuning_records="none",
        )
        macs[name] = sum(call.macs for call in open_package(report.package).manifest.targets[0].calls)
        models[name] = pcc.load(report.package, threads=1)
    if macs["pruned"] == macs["dense"]:
        return None
    image = normal_input(shape)
    seconds = interleaved_medians({name: lambda model=model: model(image) for name, model in models.items()}, RUNS)
    return seconds["dense"] / seconds["pruned"]


def normal_input(shape: tuple[int, ...]) -> np.ndarray:
    """Normal values, always the same, as normalised photos have: zeros may take another time."""
    return np.random.default_rng(0).standard_normal(shape, np.float32)
