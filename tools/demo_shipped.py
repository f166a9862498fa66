"""The demo's first part: the CIFAR-10 network that comes with pcc, trained and pruned, compiled and run on the photos
that come with it."""

from pathlib import Path

import numpy as np
import torch

import pcc
from pcc.frontend.packed import packed_notes
from pcc.models import create, entry
from pcc.models.cifar_photos import cifar_photos
from pcc.models.weights import VGG8_CIFAR10
from tools.packages import facts, run_compile
from tools.peers import interleaved_medians, onnxruntime_runner
from tools.table import table

PRUNED, DENSE = "vgg8-pruned", "vgg8"
PEER = "ONNX Runtime"


def show_shipped(folder: Path, runs: int, threads: int) -> None:
    """Compiles the pruned network, and the dense one of the same layers with random weights, which take the same time;
    prints a table."""
    module, photos = create(PRUNED), cifar_photos()
    images = [entry(PRUNED).preprocessing.apply(picture) for picture in photos.pictures()]
    packages = {
        PRUNED: run_compile(folder / PRUNED, PRUNED),
        DENSE: run_compile(folder / f"{DENSE}-random", DENSE, "--weights", "none"),
    }
    models = {name: pcc.load(package, threads=threads) for name, package in packages.items()}
    peer = onnxruntime_runner(module, images[0], folder / f"{PRUNED}.onnx", threads)
    seconds = interleaved_medians(
        {
            **{name: lambda model=model: model(images[0]) for name, model in models.items()},
            PEER: lambda: peer(images[0]),
        },
        runs,
    )

    scores, expected = (np.concatenate([run(image) for image in images]) for run in (models[PRUNED], peer))
    right = f"{int((scores.argmax(axis=1) == photos.labels).sum())} of {len(photos.labels)}"
    rows = []
    for name, structure, photos_right in (
        (PRUNED, "8 patterns, connectivity", right),
        (DENSE, "dense, random weights", ""),
    ):
        found = facts(packages[name])
        rows.append(
            [
                name,
                structure,
                f"{found.sparse} of {found.convolutions}",
                photos_right,
                f"{found.library_bytes / 1e6:.2f} MB",
                f"{(models[name].arena_bytes + models[name].thread_bytes) / 1e6:.2f} MB",
                f"{seconds[name] * 1e3:.2f} ms",
                f"{seconds[PEER] * 1e3:.2f} ms",
            ]
        )
    notes = packed_notes(VGG8_CIFAR10.path())
    error = np.abs(scores - expected).max() / np.abs(expected).max()
    columns = ["network", "structure", "sparse layers", "photos right", "library", "peak memory", "latency"]
    print(f"\n{table([*columns, f'{PEER}, dense'], rows)}\n")
    print(
        f"{PRUNED} was trained with its structure. Its convolutions have {rate(module):.1f} times fewer weights than "
        f"{DENSE}'s.\n"
        f"Of CIFAR-10's 10,000 test photos it gets {notes['accuracy']:.1%} right, the dense network it was made of "
        f"{notes['dense_accuracy']:.1%}.\n"
        f"On the photos its scores agree with {PEER}'s within {error:.1e} of the largest."
    )


def rate(module: torch.nn.Module) -> float:
    """Weights of all convolutions for each that is not zero."""
    weights = [layer.weight for layer in module.modules() if isinstance(layer, torch.nn.Conv2d)]
    return sum(weight.numel() for weight in weights) / sum(int(weight.count_nonzero()) for weight in weights)
