"""Tuning for GPUs, the whole loop on PoCL: measured there, chosen by select-kernels, told by explain; and schedules
that a device cannot run."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from pcc.codegen.opencl.profiles import PROFILES
from pcc.codegen.select_kernels import Priced
from pcc.codegen.tuning_records import TuningRecord, TuningRecords
from pcc.deploy import Host
from pcc.errors import PccError
from pcc.passes.pipeline import DEFAULT_PIPELINE
from pcc.planner import open_graph
from pcc.progress import quiet
from pcc.target import Gpu, host_target
from pcc.tune import tuner
from pcc.tune.gpu import GpuJudge
from pcc.tune.network import NetworkLayer, network_layers
from pcc.tune.tuner import tune
from tests.cli.conftest import Outcome
from tests.opencl import pocl_environment

Pcc = Callable[..., Outcome]

NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.PReLU(8), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
"""
SHAPE = "1,4,7,9"


@pytest.fixture
def model(tmp_path: Path) -> tuple[str, ...]:
    """The words that name the network."""
    (tmp_path / "net.py").write_text(NETWORK)
    return f"{tmp_path / 'net.py'}:make", "--input-shape", SHAPE


@pytest.fixture
def on_pocl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that are started find PoCL."""
    for name, value in pocl_environment(tmp_path / "opencl").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tuner, "ROUNDS", 2)
    monkeypatch.setattr(tuner, "LAST_ROUNDS", 2)


@pytest.mark.usefixtures("on_pocl")
def test_measured_chosen_and_explained(pcc: Pcc, model: tuple[str, ...], tmp_path: Path) -> None:
    records = tmp_path / "records"
    kept = ("--gpu", "opencl", "--tuning-records", records)
    said = pcc("tune", *model, "--trials", "3", *kept, "--json")
    assert said.status == 0, said.err
    tuned = json.loads(said.out)
    assert tuned["processor"].startswith("opencl-generic-")
    assert "-driver-3-0" in tuned["processor"], "PoCL's version"
    assert [layer["schedules"] for layer in tuned["layers"]] == [3, 3]
    with TuningRecords(records, read_only=True) as opened:
        assert opened.processors() == [tuned["processor"]]

    assert f"tuned: 2 of 2 layers, by {tuned['processor']}" in pcc("compile", *model, *kept, "-o", tmp_path / "net").out
    explained = json.loads(pcc("explain", *model, *kept, "--json").out)
    uses = [layer["choice"]["tuning"] for layer in explained["layers"]]
    assert [use["speedup"] for use in uses] == [layer["speedup"] for layer in tuned["layers"]]
    chosen = [f"{layer['choice']['family']}, {layer['choice']['schedule']['text']}" for layer in explained["layers"]]
    assert chosen == [layer["best"] for layer in tuned["layers"]]
    measured = f"Measured (pcc tune) on {tuned['processor']}: 2 of 2 layers"
    assert measured in pcc("explain", *model, *kept).out
    assert measured in pcc("explain", tmp_path / "net", "--gpu", "opencl").out
    costs = pcc("explain", *model, "--gpu", "opencl", "--tuning-records", "none").out
    assert "Estimated by costs: nothing was measured (pcc tune --gpu)." in costs
    other = pcc("explain", *model, "--gpu", "opencl:mali-g5x", "--tuning-records", records).out
    assert "Estimated by costs" in other, "records are of the family that they were measured for"
    assert "right, largest error" in pcc("verify", tmp_path / "net", "--use", "gpu").out

    with TuningRecords(records) as opened:
        words = dict.fromkeys(("layer", "structure", "dtype", "generation", "costs_choice", "best"), "")
        opened.put(TuningRecord(**words, processor="opencl-generic-another", speedup=1.0, schedules=1))
    said = pcc("compile", *model, *kept, "-o", tmp_path / "net")
    assert "were measured on several devices of opencl:generic (opencl-generic-another, " in said.error


class Refusing(GpuJudge):
    """A GPU that takes twice the time for each schedule than for the one before, and refuses some."""

    refuses: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.name, self.interface, self.profile = "a GPU, driver 1", "opencl", "generic"

    def _time(self, layer: NetworkLayer, schedules: Sequence[Priced], rounds: int) -> tuple[str, dict[str, float]]:
        if self.refuses & {each.text for each in schedules}:
            return "CL_OUT_OF_RESOURCES", {}
        return "", {each.text: 2.0**place for place, each in enumerate(schedules[1:], start=1)}


def test_schedules_that_a_device_refuses(tmp_path: Path) -> None:
    torch.manual_seed(0)
    target = replace(host_target(), gpu=Gpu("opencl"))
    module = nn.Conv2d(4, 8, 3, padding=1).eval()
    graph = open_graph(module, (torch.zeros(1, 4, 9, 9),), DEFAULT_PIPELINE, target)
    judge, profile = Refusing(target, Host()), PROFILES["generic"]
    (layer,) = network_layers(graph, judge.processor)
    base, *others = layer.open.priced(profile)[0]
    judge.refuses = frozenset({others[0].text})
    assert judge.ratios(layer, base, others[:2], 3) == {others[1].text: 2.0}
    assert judge.refused == {others[0].text: "CL_OUT_OF_RESOURCES"}
    (tuned,) = tune(graph, judge, profile, tmp_path / "records", 5, quiet)
    assert tuned.record.processor == "opencl-generic-a-gpu-driver-1"
    assert (tuned.record.speedup, tuned.record.schedules) == (1.0, 5), "others take the refused one's place"
    judge.refuses = frozenset({base.text})
    with pytest.raises(PccError, match="CL_OUT_OF_RESOURCES"):
        judge.ratios(layer, base, others[1:2], 3)


def test_wrong_use(pcc: Pcc, model: tuple[str, ...]) -> None:
    tune_for = ("tune", *model, "--gpu")
    assert "one family of GPUs at a time" in pcc(*tune_for, "opencl:adreno-6xx,generic").error
    assert pcc(*tune_for, "vulkan").error.startswith("unknown GPU interface 'vulkan'")
    assert (
        "which cannot execute code for aarch64-android" in pcc(*tune_for, "opencl", "--target", "aarch64-android").error
    )
    assert "is a processor's" in pcc(*tune_for, "opencl", "--machine-profile", "built-in").error
    assert pcc("tune", "--calibrate", "--gpu", "opencl").status == 2
