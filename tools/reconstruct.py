"""ImageNet networks without the ImageNet set: how much structure survives one shot, and how much with layer-wise
reconstruction?

``python -m tools.reconstruct [NETWORK [STRUCTURE]]`` runs the rows that docs/results/imagenet.json does not have yet
and prints the table. Samples are unlabelled: crops of the photos that a package for machine vision carries with
CIFAR-10 enlarged, and photos of ``--photos``, too. With ``--minutes`` the network is also reconstructed on all of
those, and then distilled. Measured is top-1 on ``--labelled``, a list or class folders as ``pcc eval`` takes them, and
on images of the package and of CIFAR-10 that were held out how often the network says what its dense self says, and
the error of the logits over their variance.
"""

import argparse
import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image
from pydantic import BaseModel, ConfigDict, TypeAdapter
from torch import nn

from pcc.compression.photos import open_photos, split
from pcc.evaluate.evaluate import evaluate
from pcc.evaluate.network import of_module
from pcc.evaluate.samples import open_samples
from pcc.evaluate.statistics import Share
from pcc.models import create, entry
from pcc.sparsity.kernels import Kernels
from pcc.sparsity.structure import Structure
from pcc.training.distill import distill
from pcc.training.layers import Structures, bind
from pcc.training.methods.one_shot import OneShot
from pcc.training.reconstruct import reconstruct
from tools.by_layer import by_layer
from tools.table import table
from tools.unlabelled import crops, other_photos, small_images

RESULTS = Path("docs/results/imagenet.json")
SAMPLES = 256
HELD_OUT = 128
BATCH = 32
SHAPE = (3, 224, 224)


@dataclass(frozen=True)
class Setup:
    """What a network is cut to: the connections of its convolutions but the first, depthwise ones left out."""

    network: str
    patterns: int | None
    rate: float
    share: int = 1
    by_layer: bool = False
    """Structure and rate are chosen for each layer; as many weights stay as if all were alike."""

    def __str__(self) -> str:
        patterns = f"{self.patterns} patterns" if self.patterns else ""
        connectivity = f"connectivity {self.rate:g}x" if self.rate > 1 else ""
        shared = f"shared by {self.share} filters" if self.share > 1 else ""
        chosen = "as many weights by layer" if self.by_layer else ""
        return ", ".join(part for part in (patterns, connectivity, shared, chosen) if part)

    def structures(self) -> dict[str, Structure | None]:
        """Patterns on 3x3 convolutions, connectivity on all, alike."""
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
    Setup("resnet50", 8, 3.6, by_layer=True),
]
"""MobileNetV2 has no 3x3 convolution for patterns: but for the first they are depthwise."""


class Row(BaseModel):
    """A setup by one method."""

    model_config = ConfigDict(extra="forbid")

    network: str
    structure: str
    rate: float
    """Dense weights for each that is kept, over the layers that were cut."""
    method: str
    samples: str
    """Where those come from that it was fitted on; empty if no sample was needed."""
    top1: Share | None
    """On labelled photos, and..."""
    dense_top1: Share | None
    """...of the dense network on the same."""
    agreement: float
    """How often it names the class that its dense self names, on images that nothing was fitted to."""
    logits_error: float
    """On the same: squared, over the variance of the dense network's logits."""
    seconds: float
    """Of pruning and fitting."""


_ROWS = TypeAdapter(list[Row])


class Images:
    """What a network is fitted and measured on; read when it is asked for."""

    def __init__(self, network: str, photos: str | None, labelled: str | None) -> None:
        self._preprocessing = entry(network).preprocessing
        self.photos = open_photos(photos, SHAPE, self._preprocessing) if photos else None
        self.labelled = open_samples(labelled, SHAPE, self._preprocessing) if labelled else None

    @cached_property
    def package(self) -> torch.Tensor:
        """To fit on, as are..."""
        return self._tensor(*crops(other_photos().to_fit, SAMPLES // 2, 0), *small_images("train", SAMPLES // 2))

    @cached_property
    def some_photos(self) -> torch.Tensor:
        """...these, and..."""
        assert self.photos is not None
        return split(self.photos, SAMPLES).fitted

    @cached_property
    def all_photos(self) -> torch.Tensor:
        """...these."""
        assert self.photos is not None
        return torch.from_numpy(self.photos.read(0, self.photos.count)[0])

    @cached_property
    def held_out(self) -> torch.Tensor:
        return self._tensor(*crops(other_photos().held_out, HELD_OUT // 2, 1), *small_images("test", HELD_OUT // 2))

    def _tensor(self, *images: Image) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([self._preprocessing.apply(image) for image in images]))


@torch.no_grad()
def outputs(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([model(batch) for batch in x.split(BATCH)])


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


class Measure:
    """How near to its dense self a network is."""

    def __init__(self, network: str, images: Images) -> None:
        self.network, self.images = network, images
        self._chosen: dict[Setup, Structures] = {}

    @cached_property
    def dense(self) -> nn.Module:
        return create(self.network)

    @cached_property
    def dense_outputs(self) -> torch.Tensor:
        return outputs(self.dense, self.images.held_out)

    @cached_property
    def dense_top1(self) -> Share | None:
        return self.top1(self.dense)

    def structures(self, setup: Setup) -> Structures:
        """What a setup cuts each layer to; chosen once."""
        if setup.by_layer and setup not in self._chosen:
            samples = self.images.package if self.images.photos is None else self.images.some_photos
            self._chosen[setup] = by_layer(self.dense, setup.structures(), list(samples.split(BATCH)))
        return self._chosen[setup] if setup.by_layer else setup.structures()

    def top1(self, model: nn.Module) -> Share | None:
        if self.images.labelled is None:
            return None
        found = evaluate(of_module("", model, [(1, *SHAPE)]), self.images.labelled).accuracy
        return found and found.top1

    def row(self, setup: Setup, method: str, samples: str, model: nn.Module, seconds: float) -> Row:
        weights = [layer.weight for layer in bind(model, setup.structures())]
        rate = sum(weight.numel() for weight in weights) / sum(int(weight.count_nonzero()) for weight in weights)
        found, dense = outputs(model, self.images.held_out), self.dense_outputs
        variance = (dense - dense.mean(dim=1, keepdim=True)).square().sum()
        return Row(
            network=setup.network,
            structure=str(setup),
            rate=round(rate, 2),
            method=method,
            samples=samples,
            top1=self.top1(model),
            dense_top1=self.dense_top1,
            agreement=round(float((found.argmax(1) == dense.argmax(1)).float().mean()), 3),
            logits_error=round(float((found - dense).square().sum() / variance), 4),
            seconds=round(seconds, 1),
        )


Method = Callable[[nn.Module], None]
"""Prunes a dense network in place."""


def methods(setup: Setup, measure: Measure, minutes: float) -> Iterator[tuple[str, str, Callable[[], Method]]]:
    """The name of each method, that of what it is fitted on, and what reads that and gives the method."""
    images = measure.images
    samples_of = {"package": lambda: images.package}
    if images.photos is not None:
        samples_of["photos"] = lambda: images.some_photos

    def one_shot(model: nn.Module) -> None:
        OneShot(model, measure.structures(setup)).finish()

    def estimated(model: nn.Module, samples: torch.Tensor) -> None:
        one_shot(model)
        estimate_statistics(model, samples)

    def reconstructed(model: nn.Module, samples: torch.Tensor) -> None:
        reconstruct(model, measure.structures(setup), samples.split(BATCH))

    def distilled(model: nn.Module, samples: torch.Tensor) -> None:
        reconstructed(model, samples)
        distill(model, measure.dense, samples, 60 * minutes)

    yield "one-shot", "", lambda: one_shot
    for name, samples in samples_of.items():
        yield "batch norms estimated again", name, lambda samples=samples: partial(estimated, samples=samples())
        yield "reconstructed", name, lambda samples=samples: partial(reconstructed, samples=samples())
    if minutes and images.photos is not None:
        what = f"reconstructed, distilled for {minutes:g} minutes"
        yield what, f"{images.photos.count} photos", lambda: partial(distilled, samples=images.all_photos)


def show(rows: list[Row]) -> str:
    """The table, in Markdown."""
    headers = ["network", "structure", "weights", "method", "fitted on", "top-1", "agree", "logits error", "seconds"]
    return table(headers, [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    top1 = f"{row.top1.share:.1%} of {row.dense_top1.share:.1%}" if row.top1 and row.dense_top1 else "-"
    found = [top1, f"{row.agreement:.0%}", f"{row.logits_error:.3f}", f"{row.seconds:.0f}"]
    return [row.network, row.structure, f"{row.rate:.2f}x", row.method, row.samples or "-", *found]


def results() -> list[Row]:
    """The rows that are there, in the order of the setups."""
    rows = _ROWS.validate_json(RESULTS.read_bytes()) if RESULTS.is_file() else []
    order = [(setup.network, str(setup)) for setup in SETUPS]
    return sorted(rows, key=lambda row: order.index((row.network, row.structure)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.reconstruct")
    parser.add_argument("network", nargs="?", choices=sorted({setup.network for setup in SETUPS}))
    parser.add_argument("structure", nargs="?", choices=sorted({str(setup) for setup in SETUPS}))
    parser.add_argument("--photos", metavar="FOLDER", help="unlabelled photos to fit on, too")
    parser.add_argument("--labelled", metavar="DATA", help="labelled photos to measure on")
    parser.add_argument("--minutes", type=float, default=0, help="of distillation on --photos")
    options = parser.parse_args()
    if options.minutes and not options.photos:
        parser.error("--minutes takes --photos")
    rows = results()
    rows = [row for row in rows if row.top1 or not options.labelled]  # the others are measured again
    done = {(row.network, row.structure, row.method, row.samples) for row in rows}
    wanted = [
        setup
        for setup in SETUPS
        if options.network in (None, setup.network) and options.structure in (None, str(setup))
    ]
    for network, setups in groupby(wanted, lambda setup: setup.network):
        measure = Measure(network, Images(network, options.photos, options.labelled))
        for setup in setups:
            for method, samples, ready in methods(setup, measure, options.minutes):
                if (network, str(setup), method, samples) not in done:
                    prune, model = ready(), copy.deepcopy(measure.dense)
                    measure.structures(setup)  # the choice is not timed
                    began = time.perf_counter()
                    prune(model)
                    rows.append(measure.row(setup, method, samples, model, time.perf_counter() - began))
                    RESULTS.parent.mkdir(parents=True, exist_ok=True)
                    RESULTS.write_bytes(_ROWS.dump_json(rows, indent=2) + b"\n")
                    print(f"{network}, {setup}: {method}", flush=True)
    print(show(results()))


if __name__ == "__main__":
    main()
