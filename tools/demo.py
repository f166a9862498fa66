"""`make demo`: trained networks, dense and pruned, compiled, run on photos, timed beside ONNX Runtime.

First the network that comes with pcc (`tools.demo_shipped`), then ImageNet networks, whose weights and photos are
fetched; the pruned one of these is fitted here (`tools.demo_reconstruct`). Every number was just measured, but for the
accuracy on CIFAR-10's whole test set, which the shipped file notes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import pcc
from pcc.errors import PccError
from pcc.models import ModelEntry, create, entry
from pcc.models.photos import Photo, photos
from tools.demo_reconstruct import NETWORK, SAMPLES, STRUCTURE, fit_pruned
from tools.demo_shipped import show_shipped
from tools.packages import facts, run_compile
from tools.peers import interleaved_medians, onnxruntime_runner
from tools.table import table

NETWORKS = ("mobilenet_v2", NETWORK)
FOLDER = Path("out/demo")
RUNS = 21
THREADS = 1
PEER = "ONNX Runtime"


@dataclass(frozen=True)
class Answers:
    """What a network says about the photos: one row of class scores for each."""

    scores: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]

    @property
    def first(self) -> str:
        """Label and probability of the first photo."""
        exponentials = np.exp(self.scores[0] - self.scores[0].max())
        return f"{self.names[int(self.scores[0].argmax())]} {exponentials.max() / exponentials.sum():.0%}"

    @property
    def correct(self) -> str:
        return f"{int((self.scores.argmax(axis=1) == self.labels).sum())} of {len(self.labels)}"


def main() -> None:
    """Runs it all; what cannot be fetched is left out, and said to be."""
    show_shipped(FOLDER, RUNS, THREADS)
    try:
        pictures = photos()
    except PccError as error:
        print(f"\nImageNet networks are left out, as their photos cannot be had: {error}")
        return
    rows: list[list[str]] = []
    for network in NETWORKS:
        try:
            rows += demonstrate(entry(network), pictures)
        except PccError as error:
            print(f"\n{network} is left out: {error}")
    if not rows:
        return
    headers = [
        "network",
        "structure",
        "sparse layers",
        f"{pictures[0].path.stem} is",
        "photos right",
        "library",
        "peak memory",
        "latency",
        f"{PEER}, dense",
    ]
    print(f"\n{table(headers, rows)}\n")
    print(
        f"Latency: median of {RUNS} runs on {THREADS} thread, taking turns with {PEER} in one process. Peak memory: "
        "without the weights.\n"
        f"The pruned network was cut at once and then fitted to the dense one, layer by layer, on {SAMPLES} crops of "
        "other photos without labels: it has\n"
        f"not seen the {len(pictures)} photos that are counted. MobileNetV2 stays dense: its 3x3 layers, which "
        "patterns are for, are depthwise, and what it\n"
        "bears without training, half of the connections of its 1x1 layers removed, makes it a quarter faster at most."
    )


def demonstrate(network: ModelEntry, pictures: tuple[Photo, ...]) -> list[list[str]]:
    """Compiles one network, dense and as it can be pruned here, and measures both and the peer beside each other: the
    network's rows of the table."""
    module = create(network.name)  # fetches the weights, and says so here when they cannot be had
    packages = make_packages(network.name)
    models = {structure: pcc.load(package, threads=THREADS) for structure, package in packages.items()}
    images = [network.preprocessing.apply(picture.path) for picture in pictures]
    peer = onnxruntime_runner(module, images[0], FOLDER / f"{network.name}.onnx", THREADS)
    runners = {
        **{name: lambda model=model: model(images[0]) for name, model in models.items()},
        PEER: lambda: peer(images[0]),
    }
    seconds = interleaved_medians(runners, RUNS)

    expected = np.concatenate([peer(image) for image in images])
    labels = np.array([picture.label for picture in pictures])
    names = network.labels() if network.labels else ()
    rows = []
    for structure, model in models.items():
        answers = Answers(np.concatenate([model(image) for image in images]), labels, names)
        if structure == "dense":
            error = np.abs(answers.scores - expected).max() / np.abs(expected).max()
            print(f"{network.name}, dense: scores of all photos agree with {PEER}'s within {error:.1e} of the largest")
        found = facts(packages[structure])
        rows.append(
            [
                network.name,
                structure,
                f"{found.sparse} of {found.convolutions}",
                answers.first,
                answers.correct,
                f"{found.library_bytes / 1e6:.1f} MB",
                f"{(model.arena_bytes + THREADS * model.thread_bytes) / 1e6:.1f} MB",
                f"{seconds[structure] * 1e3:.1f} ms",
                f"{seconds[PEER] * 1e3:.1f} ms",
            ]
        )
    return rows


def make_packages(name: str) -> Mapping[str, Path]:
    """A network's packages by structure: dense, and the one whose pruned weights are fitted here."""
    packages = {"dense": run_compile(FOLDER / f"{name}-dense", name)}
    if name == NETWORK:
        print(f"\nfitting a pruned {name} to the dense one (a minute or two): {STRUCTURE}", flush=True)
        weights = fit_pruned(FOLDER / f"{name}-pruned.safetensors")
        packages[STRUCTURE] = run_compile(FOLDER / f"{name}-pruned", name, "--weights", str(weights))
    return packages


if __name__ == "__main__":
    main()
