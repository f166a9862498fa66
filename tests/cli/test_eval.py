"""`pcc eval`: modules, files and packages on the same photos, here and under QEMU."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.arm64 import arm64
from tests.cli.conftest import Outcome

SHAPE = "3,3,12,12"
ONE = "1,3,12,12"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of three classes, as class folders."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(8):
        place = folder / str(number % 3)
        place.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 255, (20, 17, 3), np.uint8)).save(place / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def package(factory: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pcc.cli.app import run

    path = tmp_path_factory.mktemp("eval") / "net"
    targets = ["--target", "x86_64-linux", "--target", "aarch64-linux"]
    assert run(["compile", factory, "--input-shape", SHAPE, *targets, "-o", str(path)]) == 0
    return path


def test_a_package_against_its_module(pcc: Callable[..., Outcome], factory: str, package: Path, photos: Path) -> None:
    args = ["eval", package, "--data", photos, "--against", factory, "--input-shape", ONE, "--threads", "2"]
    result = json.loads(pcc(*args, "--json").out)
    assert (result["samples"], result["labelled"], result["where"]) == (8, True, "host")
    assert result["accuracy"]["top1"] == result["against"]["accuracy"]["top1"]
    assert result["accuracy"]["top5"] is None  # it tells four classes apart
    assert result["against"]["agreement"]["right"] == 8
    assert result["against"]["chance"] == 1
    assert result["against"]["outputs"][0]["largest"] < 1e-5
    printed = pcc(*args).out
    assert f"against {factory} (PyTorch)" in printed
    assert "same class  100.00%" in printed


@arm64
def test_under_qemu(pcc: Callable[..., Outcome], package: Path, photos: Path) -> None:
    result = json.loads(pcc("eval", package, "--data", photos, "--device", "qemu", "--against", package, "--json").out)
    assert result["where"].startswith("qemu")
    assert result["against"]["outputs"] == [{"name": "output", "largest": 0, "rms": 0}]


def test_an_onnx_file_on_photos_without_labels(
    pcc: Callable[..., Outcome], factory: str, photos: Path, tmp_path: Path
) -> None:
    assert pcc("export", factory, "--input-shape", SHAPE, "-o", tmp_path / "net.onnx").status == 0
    args = ["eval", tmp_path / "net.onnx", "--data", photos / "1", "--input-shape", SHAPE]
    result = json.loads(pcc(*args, "--against", factory, "--json").out)
    assert (result["accuracy"], result["against"]["agreement"]["count"]) == (None, 3)
    assert result["against"]["outputs"][0]["rms"] < 1e-5
    assert "has no labels: give --against" in pcc(*args).error


def test_wrong_use_is_one_line(pcc: Callable[..., Outcome], factory: str, package: Path, photos: Path) -> None:
    model = ["eval", factory, "--input-shape", ONE, "--data", photos]
    assert "is for packages" in pcc(*model, "--device", "qemu").error
    assert "--use cpu is for packages" in pcc(*model, "--use", "cpu").error
    assert "goes with a model" in pcc("eval", package, "--data", photos, "--input-shape", SHAPE).error
    assert "no data 'nothing'" in pcc("eval", package, "--data", "nothing").error
    assert "goes with a model" in pcc("eval", package, "--data", photos, "--weights", "none").error
    assert "no model 'resnet51'" in pcc(*model, "--against", "resnet51").error
    assert "--against net.py:make=: give a model and its weights" in pcc(*model, "--against", "net.py:make=").error
    batch = pcc("eval", factory, "--input-shape", SHAPE, "--data", photos).error
    assert "--input-shape 3,3,12,12: pcc eval chooses the batch of a module itself, give 1" in batch
    wrong = pcc("eval", factory, "--input-shape", "1,1,12,12", "--data", photos).error
    assert "cannot take 1 image of 1x12x12: RuntimeError: " in wrong


def test_a_network_that_ends_the_process(pcc: Callable[..., Outcome], photos: Path, tmp_path: Path) -> None:
    (tmp_path / "gone.py").write_text(
        "import sys, torch\nclass Gone(torch.nn.Module):\n    def forward(self, x):\n        sys.exit(0)\n"
    )
    for command in (["eval", "--data", photos], ["compile", "-o", tmp_path / "net"]):
        error = pcc(command[0], f"{tmp_path}/gone.py:Gone", "--input-shape", ONE, *command[1:]).error
        assert error.startswith("the model's or the data's code calls sys.exit(0) at gone.py:4: ")
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["gone.py"]
