"""The same command under torchrun: two processes that share each batch find what one finds, and speak with one
voice."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pcc.training.methods import method_names

ROOT = Path(__file__).resolve().parents[2]

NET = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.watching = nn.BatchNorm2d(1)
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.fc = nn.Linear(128, 4)

    def forward(self, x):
        x = x + 0 * self.watching(x)  # keeps statistics, and takes no part: they differ between processes
        return self.fc(torch.relu(self.conv2(torch.relu(self.conv1(x)))).flatten(1))

def make():
    return Net()

class Samples(list):
    classes = 4

def loader():
    generator = torch.Generator().manual_seed(7)
    means = torch.randn(4, 1, 8, 8, generator=generator)
    def half(count):
        labels = torch.randint(0, 4, (count,), generator=generator)
        return Samples(zip(means[labels] + torch.randn(count, 1, 8, 8, generator=generator), labels.tolist()))
    return half(128), half(100)

class WithoutNumbers(Net):
    def forward(self, x):
        return super().forward(x) * float("nan")

def without_numbers():
    return WithoutNumbers()
"""

RECIPE = """
train: {batch: 32, lr: 0.05}
structures:
  conv2: {kernels: {patterns: designed, rate: 2}}
  fc: {unstructured: {rate: 8}}
stages:
  - admm: {epochs: 3, rhos: [1e-2, 1e-1]}
  - train: {epochs: 2}
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


ONE = [sys.executable]
TWO = [
    Path(sys.executable).with_name("torchrun"),
    "--nproc-per-node",
    "2",
    "--rdzv-backend",
    "c10d",
    "--rdzv-endpoint",
    "localhost:0",
]


def prune(launcher: Sequence[str | Path], job: Path, factory: str, folder: str) -> subprocess.CompletedProcess[str]:
    command = [
        *launcher,
        "-m",
        "pcc.cli",
        "prune",
        f"net.py:{factory}",
        "--data",
        "net.py:loader",
        "--recipe",
        "recipe.yaml",
        "-o",
        folder,
        "--json",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=job, env=environment, capture_output=True, text=True, check=False, timeout=300)


def test_two_processes_find_what_one_finds(job: Path) -> None:
    alone, together = prune(ONE, job, "make", "one"), prune(TWO, job, "make", "two")
    assert (alone.returncode, together.returncode) == (0, 0), alone.stderr + together.stderr
    reports = [
        json.loads(alone.stdout),
        json.loads(together.stdout),
    ]  # which is one document: only the first process prints
    assert json.loads((job / "two" / "report.json").read_text()) == reports[1]
    assert reports[0]["epochs"] == reports[1]["epochs"] == 5
    assert reports[0]["accuracy"] > 0.8
    assert reports[1]["accuracy"] == pytest.approx(reports[0]["accuracy"], abs=0.03)
    states = [load_file(job / folder / "model.safetensors") for folder in ("one", "two")]
    for name in ("conv1.weight", "conv2.weight", "fc.weight"):
        masks = [state[name] != 0 for state in states]
        assert bool((masks[0] == masks[1]).all()), name
        assert float((states[0][name] - states[1][name]).abs().max()) < 1e-3
    assert float((states[0]["watching.running_mean"] - states[1]["watching.running_mean"]).abs().max()) < 1e-5
    assert float(states[1]["watching.running_var"] / states[0]["watching.running_var"]) == pytest.approx(1, abs=0.01)
    assert len((job / "two" / "log.csv").read_text().splitlines()) == 1 + 1 + 3 + 1 + 2
    assert len(list((job / "two" / "tensorboard").iterdir())) == 1


@pytest.mark.slow
def test_every_method_decides_alike_in_all_processes(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*TWO, "-m", "tests.training.every_method", tmp_path]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(method_names())


def test_an_error_is_told_once_and_ends_all(job: Path) -> None:
    done = prune(TWO, job, "without_numbers", "two")
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("pcc: error:")]
    assert len(lines) == 1, done.stderr
    assert "the loss is " in lines[0]
    assert "in stage 1 (admm, epoch 1 of 3, step 1)" in lines[0]
    assert "Traceback" not in done.stderr.split("torch/distributed/elastic")[0]
    assert not (job / "two" / "model.safetensors").exists()
