"""``pcc prune`` as people use it: a network of their own, wrong use, Ctrl-C, and the way on to ``pcc compile``."""

import csv
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pcc.frontend import load_factory
from tests.cli.conftest import SCRIPT
from tests.frontend.onnx.models import export

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.fc = nn.Linear(16, classes)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.fc(torch.relu(self.conv2(x)).mean((2, 3)))

def make():
    return Net()

def three_classes():
    return Net(3)

def broken():
    net = Net()
    net.conv1.weight.data[0, 0, 0, 0] = float("nan")
    return net

class Gone(Net):
    def forward(self, x):
        raise SystemExit(0)

class Samples(list):
    classes = 4

def loader():
    generator = torch.Generator().manual_seed(7)
    means = torch.randn(4, 3, 8, 8, generator=generator)
    def half(count):
        labels = torch.randint(0, 4, (count,), generator=generator)
        return Samples(zip(means[labels] + 0.5 * torch.randn(count, 3, 8, 8, generator=generator), labels.tolist()))
    return half(96), half(48)

class Slow(Samples):
    def __getitem__(self, index):
        import time
        time.sleep(0.005)
        return super().__getitem__(index)

def slow_loader():
    train, test = loader()
    return Slow(train), test
"""

RECIPE = """
train: {batch: 32, lr: 0.05}
structures: {conv1: dense, "@conv3x3": {kernels: {patterns: designed, rate: 3.6}}}
stages:
  - train: {epochs: 1, structures: {}}
  - one-shot:
  - train: {epochs: 1}
"""


@pytest.fixture(autouse=True)
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with a network, its data and a recipe that commands run in."""
    (tmp_path / "net.py").write_text(SOURCE)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


ARGS = ["--data", "net.py:loader", "--recipe", "recipe.yaml", "-o", "out"]


def test_a_pruned_network_compiles(pcc, job: Path) -> None:
    outcome = pcc("prune", "net.py:make", *ARGS, "--json")
    assert (outcome.status, outcome.err) == (0, "")
    report = json.loads(outcome.out)
    assert report == json.loads((job / "out" / "report.json").read_text())
    assert (report["model"], report["data"], report["recipe"], report["seed"], report["epochs"]) == (
        "net.py:make",
        "net.py:loader",
        "recipe.yaml",
        0,
        2,
    )
    conv1, conv2, fc = report["layers"]
    assert (conv1["structure"], conv2["structure"], fc["structure"]) == (
        "dense",
        "kernels{patterns=designed, rate=3.6}",
        "dense",
    )
    assert conv2["kept"] == round(256 / 3.6) * 4
    assert report["total"]["weight_rate"] == pytest.approx((432 + 2304 + 64) / (432 + conv2["kept"] + 64))
    assert report["total"]["macs"] == 64 * (432 + 2304) + 64
    assert (
        report["compile"]
        == "pcc compile net.py:make --weights out/model.safetensors --input-shape 1,3,8,8 -o out/package"
    )

    compiled = pcc(*report["compile"].split()[1:], "--json")
    assert compiled.status == 0, compiled.err
    families = json.loads(compiled.out)["targets"][0]["families"]
    assert any("sparse" in family for family in families), families

    module = load_factory("net.py:make").eval()
    module.load_state_dict(load_file("out/model.safetensors"))
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    np.save("x.npy", x.numpy())
    assert pcc("run", "out/package", "--input", "x.npy", "-o", "y.npy").status == 0
    with torch.no_grad():
        expected = module.double()(x.double()).numpy()
    assert np.abs(np.load("y.npy") - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(("instructions", "precision"), [({}, "fp32"), ({"avx512_bf16": True}, "bf16")])
def test_what_a_recipe_in_bf16_trained_in_is_said(
    instructions: dict[str, bool], precision: str, pcc, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    (job / "recipe.yaml").write_text(RECIPE.replace("lr: 0.05", "lr: 0.05, precision: bf16"))
    outcome = pcc("prune", "net.py:make", *ARGS)
    assert (outcome.status, outcome.err) == (0, "")
    assert f"seed 0, in {precision} on " in outcome.out
    assert json.loads((job / "out" / "report.json").read_text())["precision"] == precision


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_file_is_pruned_and_compiles(suffix: str, pcc, job: Path) -> None:
    """What comes out is a file of the same format, which the other commands take."""
    x = torch.zeros(1, 3, 8, 8)
    module = load_factory("net.py:make").eval()
    if suffix == ".onnx":
        export(module, (x,), job / "net.onnx", dynamo=False, opset=17)
    else:
        torch.export.save(torch.export.export(module, (x,)), job / "net.pt2")
    outcome = pcc("prune", f"net{suffix}", *ARGS, "--json")
    assert (outcome.status, outcome.err) == (0, "")
    report = json.loads(outcome.out)
    assert [(layer["name"], layer["structure"]) for layer in report["layers"]][1] == (
        "conv2",
        "kernels{patterns=designed, rate=3.6}",
    )
    assert report["compile"] == f"pcc compile out/model{suffix} -o out/package"
    compiled = pcc(*report["compile"].split()[1:], "--json")
    assert compiled.status == 0, compiled.err
    assert any("sparse" in family for family in json.loads(compiled.out)["targets"][0]["families"])
    assert pcc("export", f"out/model{suffix}", "-o", "again.onnx").status == 0
    assert "holds its weights" in pcc("prune", f"net{suffix}", *ARGS, "--weights", "none").err
    written_over = pcc("prune", f"out/model{suffix}", *ARGS)
    assert f"out/model{suffix} would be written over" in written_over.error
    assert "would be written over" in pcc("prune", "net.py:make", *ARGS, "--weights", "out/model.safetensors").error


def test_what_people_see(pcc) -> None:
    outcome = pcc("prune", "net.py:make", *ARGS)
    assert (outcome.status, outcome.err) == (0, "")
    assert re.match(
        r"net.py:make: out/model.safetensors after 2 epochs in \d+ s, seed 0, in fp32 on .+\n"
        r"  accuracy [\d.]+%, before [\d.]+%\n",
        outcome.out,
    )
    assert re.search(r"^conv2 +kernels\{patterns=designed, rate=3.6\} +2,304 +284 ", outcome.out, re.M)
    assert re.search(r"^total +2,800 +780 ", outcome.out, re.M)
    assert outcome.out.endswith(
        "pcc compile net.py:make --weights out/model.safetensors --input-shape 1,3,8,8 -o out/package\n"
    )


def test_progress_on_a_terminal(pcc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    outcome = pcc("prune", "net.py:make", *ARGS, "--json")
    assert outcome.status == 0, outcome.err
    assert "train, epoch 1 of 1, loss" in outcome.err
    assert json.loads(outcome.out)["epochs"] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "net.py:mak"}, "the file has no 'mak'"),
        ({"model": "net.py:three_classes"}, "net.py:loader has labels 0 to 3, but the network tells 3 classes apart"),
        ({"model": "vgg7"}, "no model 'vgg7' in the zoo: did you mean vgg8"),
        ({"model": "vgg8"}, "net.py:loader has inputs of 3x8x8, the network takes 3x32x32"),
        ({"--data": "minst"}, "no data 'minst'"),
        ({"--recipe": "none.yaml"}, "recipe none.yaml: no such file"),
        ({"--recipe": "cifar"}, "no recipe is called 'cifar'"),
        (
            {"recipe": RECIPE.replace("conv3x3", "conv5x5")},
            "stage 2, one-shot: the model has no @conv5x5 layer: it has conv1, conv2, fc",
        ),
        (
            {"recipe": RECIPE.replace("3.6", "0.5")},
            "recipe.yaml: stage 2, one-shot: structure of '@conv3x3': a pruning rate of 0.5",
        ),
        (
            {"recipe": RECIPE.replace("3.6", "36000")},
            "stage 2, one-shot: layer conv2: a rate of 36000 leaves less than one of its 2304 weights",
        ),
        ({"recipe": "augment: shift" + RECIPE}, "how the samples are augmented is the loader's business"),
        ({"--weights": "none.pt"}, "none.pt"),
        ({"--weights": "imagenet"}, "--weights imagenet is for zoo models"),
        ({"--input-shape": "1,3,9,9"}, "net.py:loader has inputs of 3x8x8, the network takes 3x9x9"),
        ({"--input-shape": "3,8,8"}, "--input-shape 3,8,8: give N,C,H,W"),
        ({"--input-shape": "4,3,8,8"}, "--input-shape 4,3,8,8: the recipe says the batch, give 1 for the first size"),
        ({"model": "net.py:broken"}, "weights are not finite: conv1.weight (1 NaN, 0 Inf of 432)"),
        ({"model": "net.py:Gone"}, "the model's or the data's code calls sys.exit(0) at net.py:"),
        (
            {"--teacher": "vgg8"},
            "--teacher vgg8: give a model and its weights, for example resnet20=dense/model.safetensors",
        ),
        (
            {"--teacher": "net.py:three_classes=none"},
            "teacher net.py:three_classes: net.py:loader has labels 0 to 3, but the network tells 3 classes apart",
        ),
        ({"--teacher": "net.py:make=none"}, "no stage of the recipe learns from a teacher"),
        ({"--resume": None}, "nothing to resume: out/resume.pt does not exist; run without --resume"),
    ],
    ids=str,
)
def test_wrong_use_is_one_line(pcc, job: Path, changes: dict[str, str | None], message: str) -> None:
    (job / "recipe.yaml").write_text(changes.get("recipe") or RECIPE)
    options = dict(zip(ARGS[::2], ARGS[1::2], strict=True)) | {
        name: value for name, value in changes.items() if name.startswith("--")
    }
    outcome = pcc(
        "prune",
        changes.get("model", "net.py:make"),
        *(part for option in options.items() for part in option if part is not None),
    )
    assert message in outcome.error
    assert not (job / "out").exists()


def test_output_that_cannot_be_written(pcc, job: Path) -> None:
    (job / "file").write_text("mine")
    for output in ("file", "file/out", "/proc/out"):
        assert pcc("prune", "net.py:make", *ARGS[:-1], output).error.startswith(f"cannot write {output}: ")
    assert (job / "file").read_text() == "mine"


def test_a_finished_run_is_replaced_and_a_users_files_are_not(pcc, job: Path) -> None:
    (job / "out").mkdir()
    (job / "out" / "notes.txt").write_text("mine")
    assert pcc("prune", "net.py:make", *ARGS).status == 0
    before = (job / "out" / "report.json").read_text()
    assert pcc("prune", "net.py:make", *ARGS, "--resume").status == 0
    assert (job / "out" / "report.json").read_text() == before
    assert pcc("prune", "net.py:make", *ARGS).status == 0
    assert (job / "out" / "report.json").read_text() != before  # other times
    (job / "out" / "report.json").write_text("mine")
    files = {path: path.read_bytes() for path in (job / "out").rglob("*") if path.is_file()}
    error = pcc("prune", "net.py:make", *ARGS).error
    assert error == "out/log.csv is in the way, and not of a run of pcc prune: choose another folder"
    assert {path: path.read_bytes() for path in (job / "out").rglob("*") if path.is_file()} == files


@pytest.mark.usefixtures("heeded_interrupts")
def test_interrupted_and_resumed(pcc, job: Path) -> None:
    args = ["--data", "net.py:slow_loader", *ARGS[2:], "--threads", "1"]
    process = subprocess.Popen(
        [SCRIPT, "prune", "net.py:make", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    log = job / "out" / "log.csv"
    while process.poll() is None and not (log.exists() and len(log.read_text().splitlines()) > 2):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "pcc: error: interrupted\n")
    assert sorted(path.name for path in (job / "out").iterdir()) == ["log.csv", "resume.pt", "tensorboard"]
    again = pcc("prune", "net.py:make", *args)
    assert "out/resume.pt is of a run that was interrupted: add --resume to go on with it, or remove" in again.error
    resumed = pcc("prune", "net.py:make", *args, "--resume")
    assert resumed.status == 0, resumed.err
    with log.open() as file:
        assert [row["stage"] for row in csv.DictReader(file)] == ["as it came in", "train", "one-shot, done", "train"]
    assert pcc("prune", "net.py:make", *args[:-4], "-o", "fresh", "--threads", "1").status == 0
    fresh, again = load_file("fresh/model.safetensors"), load_file("out/model.safetensors")
    assert all(torch.equal(fresh[name], again[name]) for name in fresh)


LOUD = """
import torch
from torch import nn

class Samples:
    classes = 2
    def __len__(self): return 8
    def __getitem__(self, index):
        print("read")
        return torch.full((1, 8, 8), index % 2.0), index % 2

def loader():
    print("loaded")
    return Samples(), Samples()

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(1, 4, 3), nn.BatchNorm1d(4), nn.Linear(4, 2)
    def forward(self, x):
        print("run")
        return self.fc(self.bn(self.conv(x).mean((2, 3))))

class Untrained(Net):
    def forward(self, x):
        if self.training:
            raise KeyError("not for training")
        return super().forward(x)
"""


@pytest.fixture
def loud(tmp_path: Path) -> tuple[Path, list[object]]:
    """A file of networks and data that print, and a command line that trains on the data, all but the network and the
    batch."""
    (tmp_path / "loud.py").write_text(LOUD)
    return tmp_path, [
        "--data",
        f"{tmp_path}/loud.py:loader",
        "--recipe",
        tmp_path / "recipe.yaml",
        "-o",
        tmp_path / "out",
    ]


def test_what_a_network_prints_is_no_part_of_the_result(loud: tuple[Path, list[object]], pcc) -> None:
    folder, args = loud
    (folder / "recipe.yaml").write_text("stages: [{train: {epochs: 1, train: {batch: 4}}}]")
    outcome = pcc("prune", f"{folder}/loud.py:Net", *args, "--json")
    assert json.loads(outcome.out)["epochs"] == 1
    assert {"loaded", "read", "run"} <= set(outcome.err.splitlines())


@pytest.mark.parametrize(
    ("network", "batch", "why"),
    [("Net", 1, "ValueError: Expected more than 1 value"), ("Untrained", 4, "KeyError: 'not for training'")],
)
def test_networks_that_cannot_be_trained(
    loud: tuple[Path, list[object]], pcc, network: str, batch: int, why: str
) -> None:
    folder, args = loud
    (folder / "recipe.yaml").write_text(f"stages: [{{train: {{epochs: 1, train: {{batch: {batch}}}}}}}]")
    outcome = pcc("prune", f"{folder}/loud.py:{network}", *args)
    assert outcome.status == 2
    *printed, line = outcome.err.splitlines()
    assert set(printed) <= {"loaded", "read", "run"}
    assert line.startswith(
        f"pcc: error: the network cannot be trained with {batch} samples at once in each process: {why}"
    )
    assert not (folder / "out").exists()
