"""The network and the photos that come with pcc: real sparsity with real accuracy, and nothing fetched."""

from pathlib import Path

import numpy as np
import pytest
import torch

import pcc
from pcc.compile_report import CompileReport
from pcc.deploy import Qemu
from pcc.frontend.packed import packed_notes
from pcc.models import create, entry
from pcc.models.cifar_photos import OF_EACH, SIZE, cifar_photos
from pcc.models.weights import VGG8_CIFAR10
from pcc.package import open_package
from pcc.sparsity.kernels import Kernels
from pcc.training.data import open_data
from tests.arm64 import arm64

NAME = "vgg8-pruned"
LARGEST = 450_000
"""Bytes of the file."""


def inputs() -> np.ndarray:
    """The photos as the network takes them, (200, 3, 32, 32)."""
    return np.concatenate([entry(NAME).preprocessing.apply(picture) for picture in cifar_photos().pictures()])


@pytest.fixture(scope="module")
def scores() -> np.ndarray:
    """PyTorch's, (200, 10)."""
    with torch.no_grad():
        return create(NAME)(torch.from_numpy(inputs())).numpy()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> CompileReport:
    example = torch.zeros(entry(NAME).input_shape)
    package = tmp_path_factory.mktemp("shipped") / "package"
    return pcc.compile(
        create(NAME),
        [example],
        package,
        name="vgg8",
        verify_each=True,
        machine_profile="built-in",
        tuning_records="none",
    )


def test_photos_are_the_first_of_each_class_in_the_test_set() -> None:
    photos = cifar_photos()
    assert photos.images.shape == (10 * OF_EACH, SIZE, SIZE, 3)
    assert np.bincount(photos.labels).tolist() == [OF_EACH] * 10
    data = open_data("cifar10")
    found, labels = data.test_samples(torch.arange(500))
    for label in range(10):
        first = (labels == label).nonzero().flatten()[:OF_EACH]
        np.testing.assert_allclose(inputs()[photos.labels == label], found[first].numpy(), atol=1e-5)


def test_weights_are_pruned_eight_times_and_small() -> None:
    assert VGG8_CIFAR10.path().stat().st_size <= LARGEST
    every = [
        layer.weight.detach().numpy()
        for layer in create(NAME).modules()
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear))
    ]
    assert sum(weight.size for weight in every) >= 8 * sum(np.count_nonzero(weight) for weight in every)
    first, *others = [weight for weight in every if weight.ndim == 4]
    assert first.all()
    for weight in others:
        found = Kernels.detect(weight)
        assert isinstance(found, Kernels)
        assert isinstance(found.patterns, tuple)
        assert len(found.patterns) <= 8
        assert found.rate > 1


def test_pytorch_gets_right_what_was_noted(scores: np.ndarray) -> None:
    notes = packed_notes(VGG8_CIFAR10.path())
    assert int((scores.argmax(axis=1) == cifar_photos().labels).sum()) == notes["photos_right"]
    assert float(notes["accuracy"]) > 0.85


def test_accuracy_is_within_half_a_point_of_the_dense_network() -> None:
    notes = packed_notes(VGG8_CIFAR10.path())
    assert float(notes["accuracy"]) >= float(notes["dense_accuracy"]) - 0.005


def test_sparse_kernels_run_every_convolution_that_is_pruned_enough(compiled: CompileReport) -> None:
    """The four that keep every second connection or fewer. Of the two before them so much is left that Winograd is as
    fast on some processors: on all, their costs are within a quarter."""
    (target,) = compiled.manifest.targets
    choices = {
        layer.layer: layer.choice for layer in target.layers if layer.choice and layer.choice.family.startswith("conv")
    }
    first, second, third, *others = choices
    assert not choices[first].family.startswith("conv-sparse")
    assert len(others) == 4
    assert all(choices[layer].family.startswith("conv-sparse") for layer in others)
    for layer in (second, third):
        costs = {other.family: other.cost for other in choices[layer].rejected if other.cost} | {
            choices[layer].family: choices[layer].cost
        }
        sparse, dense = (
            min(cost for family, cost in costs.items() if family.startswith(kind))
            for kind in ("conv-sparse", "conv-dense")
        )
        assert sparse < 5 / 4 * dense


def test_compiled_network_answers_as_pytorch_does(compiled: CompileReport, scores: np.ndarray) -> None:
    with pcc.load(compiled.package) as model:
        found = np.concatenate([model(image[None]) for image in inputs()])
    np.testing.assert_allclose(found, scores, rtol=0, atol=1e-4 * np.abs(scores).max())
    assert np.array_equal(found.argmax(axis=1), scores.argmax(axis=1))


@arm64
def test_arm64_answers_as_pytorch_does(tmp_path: Path, scores: np.ndarray) -> None:
    """Eight photos of different classes as one batch."""
    chosen = np.arange(8) * OF_EACH
    report = pcc.compile(
        create(NAME),
        [torch.zeros(8, *entry(NAME).input_shape[1:])],
        tmp_path / "package",
        target="aarch64-linux",
        name="vgg8",
    )
    (found,) = Qemu("cortex-a53").run(open_package(report.package), [inputs()[chosen]], threads=2)
    np.testing.assert_allclose(found, scores[chosen], rtol=0, atol=1e-4 * np.abs(scores).max())
    assert np.array_equal(found.argmax(axis=1), scores[chosen].argmax(axis=1))
