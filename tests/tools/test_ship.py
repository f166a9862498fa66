"""What ships is chosen, packed and refused as it should be; what it is worth is tested in
tests/models/test_shipped.py."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pcc.errors import PccError
from pcc.models import entry
from pcc.models.cifar_photos import cifar_photos
from pcc.sparsity.kernels import Kernels
from pcc.training.data import ArrayData, Arrays
from tools import ship


def as_data(images: np.ndarray, labels: np.ndarray) -> ArrayData:
    """Photos as a data set."""
    arrays = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels)
    preprocessing = entry(ship.NETWORK).preprocessing
    return ArrayData("photos", 10, Arrays(*arrays, *arrays), preprocessing.mean, preprocessing.std)


def test_the_first_of_each_class() -> None:
    assert ship.first_of_each(np.array([1, 0, 1, 2, 0, 0, 1, 2, 2]), 2).tolist() == [1, 4, 0, 2, 3, 7]


def test_the_sheet_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = cifar_photos()
    order = np.random.default_rng(0).permutation(len(photos.labels))
    images, labels = photos.images[order], photos.labels[order]
    chosen = ship.first_of_each(labels, ship.OF_EACH)
    ship.sheet(as_data(images, labels), chosen).save(tmp_path / "sheet.png")
    monkeypatch.setattr("pcc.models.cifar_photos.SHEET", tmp_path / "sheet.png")
    assert np.array_equal(cifar_photos().images, images[chosen])
    assert np.array_equal(cifar_photos().labels, labels[chosen])


def test_only_pruned_convolutions_are_packed() -> None:
    net = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3, groups=2), nn.Linear(8, 2))
    with pytest.raises(PccError, match="no convolution with patterns or missing connections"):
        ship.pack(net)
    grouped = net.get_parameter("1.weight").data
    grouped.copy_(torch.from_numpy(Kernels("designed", 2.0).project(grouped.numpy(), 2)))
    packed, cost = ship.pack(net)
    assert set(packed.contents.weights) == {"1.weight"}
    assert (cost.weights, cost.kept) == (8 * 4 * 9, 8 * 4 * 2)
    assert torch.equal(packed.unpack()["1.weight"], grouped.half().float())
