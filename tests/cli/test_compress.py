"""`pcc compress`: a network and photos in; package, checkpoint, recipe, report and a table out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pcc.cli.app import run as run_command
from pcc.errors import PccError
from tests.cli.conftest import Outcome

FACTORY = """
import torch
from torch import nn

def conv(i, o, k, **options):
    return nn.Sequential(nn.Conv2d(i, o, k, padding=k // 2, bias=False, **options), nn.BatchNorm2d(o), nn.ReLU())

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = conv(3, 16, 3, stride=2), conv(16, 32, 3), conv(32, 32, 3)
        self.c, self.fc = conv(32, 64, 1), nn.Linear(64, 10)

    def forward(self, x):
        x = self.a(self.stem(x))
        return self.fc(self.c(self.b(x) + x).mean((2, 3)))

def make():
    torch.manual_seed(0)
    return Net().eval()

def one_at_a_time():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(0), nn.Unflatten(0, (1, -1)), nn.Linear(8 * 22 * 22, 10))
"""
SHAPE = "1,3,24,24"


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("net") / "net.py"
    path.write_text(FACTORY)
    return f"{path}:make"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty photos whose neighbouring pixels are alike."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(60):
        colours = Image.fromarray(random.integers(0, 255, (5, 5, 3), np.uint8))
        colours.resize((24, 24), Image.Resampling.BILINEAR).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def compressed(net: str, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compressed") / "half"
    args = ["compress", net, "--images", str(photos), "--input-shape", SHAPE, "--macs", "50%", "-o", str(out)]
    assert run_command(args) == 0
    return out


def test_the_wish_comes_true(compressed: Path) -> None:
    report = json.loads((compressed / "report.json").read_text())
    assert report["wish"] == "--macs 0.5"
    assert 0.3 < report["macs"] <= 0.5
    assert (report["photos"], report["held_out"]) == (48, 12)
    assert report["measured"] > 0
    assert report["comparison"]["outputs"][0]["rms"] < 0.2
    pruned = [row for row in report["layers"] if row["kept"] < 1]
    assert pruned
    assert all(row["fitted_error"] is not None and row["why"] for row in pruned)
    assert all(row["why"].startswith("dense: ") for row in report["layers"] if row["kept"] == 1)
    assert sorted(path.name for path in compressed.iterdir()) == [
        "model.safetensors",
        "package",
        "recipe.yaml",
        "report.json",
    ]


def test_package_and_checkpoint_are_the_same_network(
    pcc: Callable[..., Outcome], net: str, photos: Path, compressed: Path
) -> None:
    against = f"{net}={compressed / 'model.safetensors'}"
    args = ["eval", compressed / "package", "--data", photos, "--input-shape", SHAPE, "--against", against, "--json"]
    assert json.loads(pcc(*args).out)["against"]["outputs"][0]["rms"] < 1e-5


def test_the_recipe_goes_on_with_labels(
    pcc: Callable[..., Outcome], net: str, photos: Path, compressed: Path, tmp_path: Path
) -> None:
    for number, photo in enumerate(sorted(photos.iterdir())):
        place = tmp_path / "data" / ("train" if number < 40 else "test") / str(number % 10)
        place.mkdir(parents=True, exist_ok=True)
        (place / photo.name).symlink_to(photo)
    args = ["prune", net, "--data", tmp_path / "data", "--recipe", compressed / "recipe.yaml", "--input-shape", SHAPE]
    done = pcc(*args, "--weights", compressed / "model.safetensors", "-o", tmp_path / "more", "--json")
    assert done.status == 0, done.err
    before = json.loads((compressed / "report.json").read_text())
    kept = {layer["name"]: layer["weights"] / layer["kept"] for layer in json.loads(done.out)["layers"]}
    for row in before["layers"]:
        if row["kept"] < 1 and "of its filters" not in row["structure"]:
            assert kept[row["layer"]] == pytest.approx(1 / row["kept"], rel=0.05)


@pytest.mark.slow
def test_for_another_processor_costs_decide(
    pcc: Callable[..., Outcome], net: str, photos: Path, tmp_path: Path
) -> None:
    args = ["compress", net, "--images", photos, "--input-shape", SHAPE, "--faster", "1.3", "-o", tmp_path / "out"]
    done = pcc(*args, "--target", "aarch64-linux", "--cpu", "cortex-a76")
    assert done.status == 0, done.err
    assert "times as fast by the cost model" in done.out
    assert "does not execute the target's code" in done.out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["measured"], report["cpu"]) == (None, "cortex-a76")
    assert report["predicted"] >= 1.3


def test_as_fast_as_a_share_of_photos_allows(
    pcc: Callable[..., Outcome], net: str, photos: Path, tmp_path: Path
) -> None:
    args = ["compress", net, "--images", photos, "--input-shape", SHAPE, "--target", "aarch64-linux", "--json"]
    done = pcc(*args, "--keep", "50%", "-o", tmp_path / "out")
    assert done.status == 0, done.err
    report = json.loads(done.out)
    assert report["comparison"]["agreement"]["share"] >= 0.5
    assert report["predicted"] > 1.4  # the first that is tried is twice as fast
    assert (tmp_path / "out" / "package" / "manifest.json").exists()


def test_an_interrupted_run_goes_on(
    pcc: Callable[..., Outcome], net: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pcc.compression import compress

    args = ["compress", net, "--images", photos, "--input-shape", SHAPE, "--macs", "0.5", "-o", tmp_path / "out"]
    assert "nothing to resume" in pcc(*args, "--resume").error

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(compress, "make_database", interrupted)
        assert pcc(*args).status == 130
    assert not (tmp_path / "out").exists()
    with monkeypatch.context() as patch:
        patch.setattr(compress, "reconstruct", interrupted)
        assert pcc(*args).status == 130
    assert not (tmp_path / "out" / "package").exists()
    assert "work is of a run that was interrupted: add --resume to go on with it, or remove" in pcc(*args).error

    def again(*_: object) -> None:
        raise AssertionError("the database is made again")

    monkeypatch.setattr(compress, "make_database", again)
    assert "is of another target" in pcc(*args, "--resume", "--cpu", "cortex-a53").error
    assert "out of reach" in pcc(*args, "--resume", "--macs", "0.01").error
    done = pcc(*args, "--resume")
    assert done.status == 0, done.err
    assert (tmp_path / "out" / "package" / "manifest.json").exists()


def test_wrong_use_is_one_line(pcc: Callable[..., Outcome], net: str, photos: Path, tmp_path: Path) -> None:
    args = ["compress", net, "--images", photos, "--input-shape", SHAPE, "-o", tmp_path / "out"]
    assert "no wish: give one of" in pcc(*args).error
    assert "two wishes: give one of" in pcc(*args, "--faster", "2", "--macs", "0.5").error
    assert "more than 1, which the dense network is" in pcc(*args, "--faster", "1").error
    assert "no share" in pcc(*args, "--keep", "most").error
    for minutes in ("nan", "inf", "0"):
        assert "for '--minutes'" in pcc(*args, "--macs", "0.5", "--minutes", minutes).error
    batch = [*args[:5], "4,3,24,24", *args[6:]]
    assert (
        "--input-shape 4,3,24,24: pcc compress chooses the batch itself, give 1" in pcc(*batch, "--macs", "0.5").error
    )
    assert "images 'cifar10': give a folder" in pcc(*args[:3], "cifar10", *args[4:], "--faster", "2").error
    one = [*args[:1], net.replace(":make", ":one_at_a_time"), *args[2:]]
    assert "cannot take 2 images of" in pcc(*one, "--faster", "2").error
    whole = [*args[:5], f"{SHAPE}:uint8", *args[6:]]
    assert "takes whole numbers: pcc compress gives it photos as fp32" in pcc(*whole, "--faster", "2").error
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "1.png").symlink_to(photos / "1.png")
    few = ["compress", net, "--images", tmp_path / "few", "--input-shape", SHAPE, "--faster", "2", "-o", tmp_path / "x"]
    assert "has 1 photos: 10 are the least" in pcc(*few).error
    assert not (tmp_path / "x").exists()
    (tmp_path / "out" / "work").mkdir(parents=True)
    (tmp_path / "out" / "work" / "mine").touch()
    assert "is in the way, and not of a run of pcc compress" in pcc(*args, "--faster", "2").error
    assert (tmp_path / "out" / "work" / "mine").exists()
    for file in ("report.json", "recipe.yaml", "model.safetensors", "package/thesis.txt"):
        place = tmp_path / file.replace("/", "-")
        (place / file).parent.mkdir(parents=True)
        (place / file).write_text("mine")
        error = pcc(*args[:-1], place, "--faster", "2").error
        assert ("is not a pcc package" if "/" in file else f"{file} is in the way, and not of a run of") in error
        assert [path for path in place.rglob("*") if path.is_file()] == [place / file]
        assert (place / file).read_text() == "mine"


def test_another_run_replaces_the_results(
    pcc: Callable[..., Outcome],
    net: str,
    photos: Path,
    compressed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is in the folder before stays until all of the new is made."""
    from pcc.compression import compress

    out = tmp_path / "out"
    shutil.copytree(compressed, out)
    (out / "notes.txt").write_text("mine")
    args = ["compress", net, "--images", photos, "--input-shape", SHAPE, "--macs", "60%", "-o", out]

    def files() -> dict[Path, bytes]:
        found = (path for path in out.rglob("*") if path.is_file() and "work" not in path.parts)
        return {path: path.read_bytes() for path in found}

    def full(*_: object) -> None:
        raise PccError("the disk is full")

    before = files()
    with monkeypatch.context() as patch:
        patch.setattr(compress, "recipe_text", full)
        assert pcc(*args).error == "the disk is full"
    assert files() == before
    done = pcc(*args, "--resume")
    assert done.status == 0, done.err
    after = files()
    assert after.keys() - before.keys() == before.keys() - after.keys() == set()
    assert {path.name for path in before if path.parent == out and before[path] != after[path]} == {
        "model.safetensors",
        "recipe.yaml",
        "report.json",
    }
    assert after[out / "package" / "manifest.json"] != before[out / "package" / "manifest.json"]
    assert not (out / "work").exists()
