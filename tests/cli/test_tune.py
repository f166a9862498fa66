"""``pcc tune``, and what ``pcc compile`` makes of its profiles."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pcc.codegen.machine import MACHINES, machine_of
from pcc.codegen.machine_profile import MachineProfile, read_profile
from pcc.codegen.tuning_records import saved_records
from pcc.config import saved_profile
from pcc.package import open_package
from pcc.target import executes_here, target_named
from pcc.tune import calibrate, measure
from pcc.tune.layers import Case, Pruned

FACTORY = """
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
"""
TARGET = target_named("x86_64-linux")
NET = ("--input-shape", "1,3,9,9", "--target", TARGET.name)


@pytest.fixture
def net(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(FACTORY)
    return f"{tmp_path / 'net.py'}:make"


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """A file with costs that nobody measured."""
    path = tmp_path / "mine.json"
    machine = replace(machine_of(TARGET), name="mine", origin="made up")
    path.write_text(MachineProfile.of(machine).model_dump_json())
    return path


@pytest.mark.skipif(not executes_here(TARGET), reason="this computer does not execute x86-64-v3 code")
@pytest.mark.parametrize("better", [True, False])
def test_calibrate_and_compile(pcc, net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, better: bool) -> None:
    monkeypatch.setattr(measure, "ROUNDS", 1)
    monkeypatch.setattr(measure, "measurements_folder", lambda: tmp_path / "measurements")
    monkeypatch.setattr(calibrate, "LAYERS", (Pruned(Case(8, 8, 8)),))
    monkeypatch.setattr(calibrate.Calibration, "is_better", better)
    monkeypatch.setenv("PCC_CONFIG", str(tmp_path / "config"))
    outcome = pcc("tune", "--calibrate", "--target", TARGET.name)
    assert (outcome.status, outcome.err) == (0, "")
    assert "rank correlation" in outcome.out
    assert saved_profile(TARGET).exists() == better
    assert ("Saved as" in outcome.out, "Not saved" in outcome.out) == (better, not better)
    assert not list((tmp_path / "measurements").iterdir())

    compiled = pcc("compile", net, *NET, "-o", tmp_path / "package")
    assert (compiled.status, compiled.err) == (0, "")
    assert (f"kernels chosen by {saved_profile(TARGET)}" in compiled.out) == better
    (record,) = open_package(tmp_path / "package").manifest.targets
    expected = read_profile(saved_profile(TARGET)) if better else MachineProfile.of(machine_of(TARGET))
    assert MachineProfile.model_validate(record.profile) == expected


def test_a_profile_by_name(pcc, net: str, profile: Path, tmp_path: Path) -> None:
    report = json.loads(
        pcc("compile", net, *NET, "-o", tmp_path / "package", "--machine-profile", profile, "--json").out
    )
    (target,) = report["targets"]
    assert (target["profile"]["name"], target["profile_file"]) == ("mine", str(profile))
    report = json.loads(
        pcc("compile", net, *NET, "-o", tmp_path / "package", "--machine-profile", "built-in", "--json").out
    )
    (target,) = report["targets"]
    assert (target["profile"]["name"], target["profile_file"]) == ("avx2", None)


def test_what_cannot_be_used_is_said_in_one_line(pcc, net: str, profile: Path, tmp_path: Path) -> None:
    compile_net = ("compile", net, *NET, "-o", tmp_path / "package", "--machine-profile")
    assert pcc(*compile_net, tmp_path / "none.json").error.startswith(
        f"processor profile {tmp_path / 'none.json'}: no such file; give one"
    )
    profile.write_text("{}")
    assert "is not one that this pcc reads: name: Field required" in pcc(*compile_net, profile).error
    profile.write_text(MachineProfile.of(MACHINES["cortex-a53"]).model_dump_json())
    assert "is for neon" in pcc(*compile_net, profile).error
    named = "decompose,canonicalize,fold-constants,select-kernels{processor=avx2},plan-memory"
    assert "leave one of them out" in pcc(*compile_net, "built-in", "-p", named).error
    wrong = named.replace("avx2", "cortex-a53")
    assert "has neon, and x86_64-linux has avx2" in pcc(*compile_net[:-1], "-p", wrong).error
    assert not (tmp_path / "package").exists()


@pytest.mark.skipif(not executes_here(TARGET), reason="this computer does not execute x86-64-v3 code")
def test_tune_and_compile(pcc, net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCC_CONFIG", str(tmp_path / "config"))
    outcome = pcc("tune", net, *NET, "--trials", 3)
    assert (outcome.status, outcome.err) == (0, "")
    assert "costs choose" in outcome.out
    assert f"Saved in {saved_records()}: pcc compile uses it" in outcome.out
    report = json.loads(pcc("tune", net, *NET, "--trials", 3, "--json", "--tuning-records", tmp_path / "mine").out)
    assert (report["records"], report["cpu"]) == (str(tmp_path / "mine"), TARGET.cpu)
    (layer,) = report["layers"]
    assert (layer["layers"], layer["schedules"]) == (["0"], 3)

    compiled = pcc("compile", net, *NET, "-o", tmp_path / "package")
    assert f"tuned: 1 of 1 layers, by {saved_records()}" in compiled.out
    compiled = json.loads(
        pcc("compile", net, *NET, "-o", tmp_path / "package", "--tuning-records", tmp_path / "mine", "--json").out
    )
    assert compiled["targets"][0]["records_file"] == str(tmp_path / "mine")
    assert compiled["targets"][0]["layers"][0]["choice"]["tuning"]["record"]["best"] == layer["best_schedule"]
    assert "tuned" not in pcc("compile", net, *NET, "-o", tmp_path / "package", "--tuning-records", "none").out


def test_wrong_use(pcc, net: str, tmp_path: Path) -> None:
    assert "say what to tune: a MODEL, or --calibrate and no model" in pcc("tune").error
    assert "say what to tune" in pcc("tune", net, "--calibrate").error
    assert "--trials goes with a MODEL" in pcc("tune", "--calibrate", "--trials", 3).error
    assert "-o is for the profile of --calibrate" in pcc("tune", net, *NET, "-o", tmp_path / "file").error
    assert (
        "cannot execute code for aarch64-linux"
        in pcc("tune", net, "--device", "host", "--target", "aarch64-linux").error
    )
    assert "counts instructions of arm64 code" in pcc("tune", net, "--device", "qemu", "--target", "x86_64-linux").error
    assert "leave it out to time --gpu" in pcc("tune", net, "--device", "qemu", "--gpu", "opencl").error
    assert "has to be kept in a file" in pcc("tune", net, *NET, "--tuning-records", "none").error
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "manifest.json").write_text("{}")
    assert "is a package, whose kernels are compiled" in pcc("tune", tmp_path / "package").error
    assert "the pipeline has no select-kernels" in pcc("tune", net, *NET, "-p", "canonicalize").error
    assert (
        "no such file" in pcc("compile", net, *NET, "-o", tmp_path / "p", "--tuning-records", tmp_path / "none").error
    )
    assert (
        "one target at a time"
        in pcc("tune", "--calibrate", "--target", "aarch64-linux", "--target", "x86_64-linux").error
    )
    assert "unknown cpu '486'" in pcc("tune", "--calibrate", "--cpu", "486").error
    assert "is a folder" in pcc("tune", "--calibrate", "-o", tmp_path).error
