"""ImageNet networks without the ImageNet set: how much structure survives one shot, and how much with layer-wise
reconstruction?

``python -m tools.reconstruct`` runs the rows that docs/results/imagenet.json does not have yet and prints the table; a
network and a structure, as the table spells them, restrict it. Samples are unlabelled: crops of the photos that a
package for machine vision carries, and CIFAR-10 enlarged. Measured is on the twenty labelled photos, and on photos and
CIFAR-10 images that were held out, by how often the network says what its dense self says and by the error of the
logits over their variance.
"""

import copy
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, TypeAdapter
from torch import nn

from pcc.cache import cache_root
from pcc.files import write_atomically
from pcc.models import create, entry
from pcc.models.fetch import RemotePackage, fetch_members
from pcc.models.photos import photos
from pcc.models.preprocess import CIFAR10
from pcc.sparsity.kernels import Kernels
from pcc.sparsity.structure import Structure
from pcc.training.data import open_data
from pcc.training.layers import bind
from pcc.training.methods.one_shot import OneShot
from pcc.training.reconstruct import reconstruct
from tools.table import table

RESULTS = Path("docs/results/imagenet.json")
SAMPLES = 256
HELD_OUT = 128
SIDE = 256
"""Samples are so large before the network's own preprocessing."""
BATCH = 32

PACKAGE = RemotePackage(
    "pypi", "mvtb-data", "1.5", "a65d6569289b124b61a5f99e395bf080b035686f637740163b6f9608e7729fd7", "wheel"
)
_PHOTO = (
    r"mvtbdata/images/((58060|building2-3|butterfly|eiffel-1|eiffel-2|flowers\d|greenscreen|image3|lab-scene|monalisa|notre-dame|parks|road|rocks2-l|roof"
    r"|tomato_\d+|walls-l|campus/(holdout/)?P\d+|mosaic/aerialphoto)\.png|(butterfly|church|image3)\.jpg)"
)
"""The colour photos among the package's images; of some there are several views, of which one is taken."""
_HELD_OUT = (
    "butterfly",
    "church",
    "eiffel",
    "flowers2",
    "flowers6",
    "flowers8",
    "greenscreen",
    "lab-scene",
    "monalisa",
    "parks",
    "tomato_54",
    "holdout",
)


@dataclass(frozen=True)
class Setup:
    """What a network is cut to: the connections of its convolutions but the first, depthwise ones left out."""

    network: str
    patterns: int | None
    rate: float
    share: int = 1

    def __str__(self) -> str:
        patterns = f"{self.patterns} patterns" if self.patterns else ""
        connectivity = f"connectivity {self.rate:g}x" if self.rate > 1 else ""
        shared = f"shared by {self.share} filters" if self.share > 1 else ""
        return ", ".join(part for part in (patterns, connectivity, shared) if part)

    def structures(self) -> dict[str, Structure | None]:
        """Patterns on 3x3 convolutions, connectivity on all."""
        connectivity = Kernels(None, self.rate, share=self.share)
        found: dict[str, Structure | None] = {"@first": None}
        if self.patterns is not None:
            found["@conv3x3"] = replace(connectivity, patterns=self.patterns)
        if self.rate > 1:
            found["@conv"] = connectivity
        return found


SETUPS = [
    *(Setup("mobilenet_v2", None, rate, share) for rate, share in ((1.5, 1), (2, 1), (2, 2), (2, 4), (3.6, 1))),
    Setup("resnet50", 8, 1),
    *(Setup("resnet50", 8, rate, share) for rate, share in ((1.5, 1), (2, 1), (2, 2), (2, 4), (3.6, 1))),
]
"""MobileNetV2 has no 3x3 convolution for patterns: but for the first they are depthwise."""


class Row(BaseModel):
    """One setup by one method. Agreement is how often a network names the class that its dense self names; the error of
    logits is squared, over the variance of the dense network's.
    """

    model_config = ConfigDict(extra="forbid")

    network: str
    structure: str
    rate: float
    """Dense weights for each that is kept, over the layers that were cut."""
    method: str
    photos_right_of_20: int
    agreement_with_dense: float
    """On the labelled photos, as..."""
    relative_logits_error: float
    held_out_agreement: float
    """...and on unlabelled images that nothing was fitted to."""
    held_out_logits_error: float
    samples: int
    seconds: float
    """Of pruning and fitting."""
    command: str


_ROWS = TypeAdapter(list[Row])


class Images:
    """Network inputs: ``samples`` to fit on; ``labelled`` with ``labels``, and ``held_out``, to measure on."""

    def __init__(self, network: str) -> None:
        prepare = entry(network).preprocessing.apply
        found = other_photos()
        samples = [*crops(found.to_fit, SAMPLES // 2, 0), *_cifar("train", SAMPLES // 2)]
        held_out = [*crops(found.held_out, HELD_OUT // 2, 1), *_cifar("test", HELD_OUT // 2)]
        self.samples, self.held_out = (
            torch.from_numpy(np.concatenate([prepare(image) for image in images])) for images in (samples, held_out)
        )
        self.labelled = torch.from_numpy(np.concatenate([prepare(photo.path) for photo in photos()]))
        self.labels = torch.tensor([photo.label for photo in photos()])


@dataclass(frozen=True)
class OtherPhotos:
    """Unlabelled photos, none of them among the twenty labelled ones: to take samples from, and held out."""

    to_fit: list[Image.Image]
    held_out: list[Image.Image]


@cache
def other_photos() -> OtherPhotos:
    """The photos of the package for machine vision; the first call fetches them into the cache."""
    folder = cache_root() / "photos" / f"{PACKAGE.name}-{PACKAGE.version}"
    done = folder / "complete"
    if not done.is_file():
        for name, data in fetch_members(PACKAGE, _PHOTO).items():
            write_atomically(
                folder / name.removeprefix("mvtbdata/images/").replace("/", "-"),
                lambda path, data=data: path.write_bytes(data),
            )
        done.touch()
    found = OtherPhotos([], [])
    for path in sorted(folder.glob("*.*g")):
        half = found.held_out if any(name in path.name for name in _HELD_OUT) else found.to_fit
        half.append(Image.open(BytesIO(path.read_bytes())).convert("RGB"))
    return found


def crops(images: list[Image.Image], count: int, seed: int) -> Iterator[Image.Image]:
    """Squares of half to all of the shorter side, some mirrored, as many from each image."""
    random = np.random.default_rng(seed)
    for number in range(count):
        image = images[number % len(images)]
        side = int(min(image.size) * random.uniform(0.5, 1))
        left, top = (int(random.integers(0, length - side + 1)) for length in image.size)
        crop = image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        yield crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else crop


def _cifar(half: str, count: int) -> Iterator[Image.Image]:
    data, indices = open_data("cifar10").augmented("none"), torch.arange(count)
    images, _ = data.train_samples(indices, torch.zeros(count, 3)) if half == "train" else data.test_samples(indices)
    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (CIFAR10.mean, CIFAR10.std))
    for pixels in ((images * std + mean) * 255).round().byte().permute(0, 2, 3, 1).numpy():
        yield Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


@torch.no_grad()
def outputs(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([model(batch) for batch in x.split(BATCH)])


def compare(found: torch.Tensor, dense: torch.Tensor) -> tuple[float, float]:
    """(agreement, error of the logits)."""
    agreement = (found.argmax(1) == dense.argmax(1)).float().mean()
    variance = (dense - dense.mean(dim=1, keepdim=True)).square().sum()
    return round(float(agreement), 3), round(float((found - dense).square().sum() / variance), 4)


@torch.no_grad()
def estimate_statistics(model: nn.Module, samples: torch.Tensor) -> None:
    """Sets the statistics of batch norms to those of the samples: what one-shot pruning is often followed by."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a mean over all batches
        norm.train()
    outputs(model, samples)
    model.eval()


def run(setup: Setup, dense: nn.Module, images: Images) -> Iterator[Row]:
    """The rows of a setup: one-shot, with statistics estimated again, reconstructed."""
    wanted = [outputs(dense, x) for x in (images.labelled, images.held_out)]

    def row(method: str, model: nn.Module, samples: int, seconds: float) -> Row:
        layers = bind(model, setup.structures())
        rate = sum(layer.weight.numel() for layer in layers) / sum(
            int(layer.weight.count_nonzero()) for layer in layers
        )
        found = [outputs(model, x) for x in (images.labelled, images.held_out)]
        (agreement, error), (held_out_agreement, held_out_error) = (
            compare(*pair) for pair in zip(found, wanted, strict=True)
        )
        return Row(
            network=setup.network,
            structure=str(setup),
            rate=round(rate, 2),
            method=method,
            photos_right_of_20=int((found[0].argmax(1) == images.labels).sum()),
            agreement_with_dense=agreement,
            relative_logits_error=error,
            held_out_agreement=held_out_agreement,
            held_out_logits_error=held_out_error,
            samples=samples,
            seconds=round(seconds, 1),
            command=f"python -m tools.reconstruct {setup.network} '{setup}'",
        )

    model, began = copy.deepcopy(dense), time.perf_counter()
    OneShot(model, setup.structures()).finish()
    yield row("one-shot", model, 0, time.perf_counter() - began)
    began = time.perf_counter()
    estimate_statistics(model, images.samples)
    yield row("batch norms estimated again", model, len(images.samples), time.perf_counter() - began)
    model, began = copy.deepcopy(dense), time.perf_counter()
    reconstruct(model, setup.structures(), [images.samples])
    yield row("reconstructed", model, len(images.samples), time.perf_counter() - began)


def show(rows: list[Row]) -> str:
    """The table, in Markdown."""
    headers = [
        "network",
        "structure",
        "weights",
        "method",
        "right of 20",
        "agree",
        "logits error",
        "held out: agree",
        "logits error",
        "seconds",
    ]
    return table(headers, [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    on_photos = [f"{row.photos_right_of_20}", f"{row.agreement_with_dense:.0%}", f"{row.relative_logits_error:.3f}"]
    held_out = [f"{row.held_out_agreement:.0%}", f"{row.held_out_logits_error:.3f}"]
    return [row.network, row.structure, f"{row.rate:.2f}x", row.method, *on_photos, *held_out, f"{row.seconds:.0f}"]


def results() -> list[Row]:
    """The rows that are there, in the order of the setups."""
    rows = _ROWS.validate_json(RESULTS.read_bytes()) if RESULTS.is_file() else []
    order = [(setup.network, str(setup)) for setup in SETUPS]
    return sorted(rows, key=lambda row: order.index((row.network, row.structure)))


def main(chosen: list[str]) -> None:
    rows = results()
    for network in dict.fromkeys(setup.network for setup in SETUPS):
        dense, images = None, None
        for setup in SETUPS:
            known = any((row.network, row.structure) == (setup.network, str(setup)) for row in rows)
            if setup.network != network or known or not all(text in (network, str(setup)) for text in chosen):
                continue
            dense, images = dense or create(network), images or Images(network)
            rows += run(setup, dense, images)
            RESULTS.parent.mkdir(parents=True, exist_ok=True)
            RESULTS.write_bytes(_ROWS.dump_json(rows, indent=2) + b"\n")
            print(f"{setup.network}: {setup}", flush=True)
    print(show(results()))


if __name__ == "__main__":
    main(sys.argv[1:])
