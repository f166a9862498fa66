"""A calibration from the schedules to the profile, with two small layers: timed on this machine, counted on an emulated
one."""

from pathlib import Path

import pytest

from pcc.codegen.machine import machine_of
from pcc.codegen.machine_profile import read_profile
from pcc.deploy.counting_qemu import missing
from pcc.errors import PccError
from pcc.progress import quiet
from pcc.target import Target, executes_here, target_named
from pcc.tune import measure
from pcc.tune.calibrate import calibrate
from pcc.tune.layers import LAYERS, Case, Pruned
from pcc.tune.trials import MOST_SCHEDULES, offers
from tests.arm64 import arm64

SMALL = (Pruned(Case(8, 8, 8)), Pruned(Case(16, 7, 16, 1)))
HERE = target_named("x86_64-linux")
on_this_computer = pytest.mark.skipif(not executes_here(HERE), reason="this computer does not execute x86-64-v3 code")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Few rounds, and measurements in a folder of the test's; compiled kernels stay where they are."""
    monkeypatch.setattr(measure, "ROUNDS", 3)
    monkeypatch.setattr(measure, "measurements_folder", lambda: tmp_path)


def test_every_family_offers_schedules() -> None:
    machine = machine_of(target_named("x86_64-linux", "x86-64-v4"))
    offered = [offer for layer in SMALL for offer in offers(layer, machine)]
    assert {offer.family for offer in offered} >= {
        "conv-dense",
        "conv-sparse-interleaved",
        "conv-sparse-pointwise",
        "conv-sparse-gather",
    }
    for offer in offered:
        rivals = offer.rivals(machine.costs)
        assert rivals[0] == offer.cheapest(machine.costs)
        assert len({trial.key for trial in rivals}) == len(rivals) <= MOST_SCHEDULES
        assert rivals == offer.rivals(machine.costs)


def test_layers_have_names_of_their_own() -> None:
    assert len({str(layer) for layer in LAYERS}) == len(LAYERS)


@on_this_computer
def test_timed(tmp_path: Path) -> None:
    found = calibrate(HERE, quiet, layers=SMALL)
    assert found.profile.origin.startswith("timed on ")
    assert "of 2 layers" in found.profile.origin
    assert any(found.profile.costs.values())
    assert found.profile.costs != found.built_in.costs
    assert all(cycles > 0 for cycles in found.taken.values())
    assert found.ranking.loss >= 1
    found.save(tmp_path / "folder" / "profile.json")
    assert read_profile(tmp_path / "folder" / "profile.json") == found.profile


@on_this_computer
def test_an_interrupted_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[str] = []

    def interrupt(text: str) -> None:
        timed.append(text)
        if "round 3" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(HERE, interrupt, layers=SMALL)
    assert any("round 1 of 3" in text for text in timed)
    timed.clear()
    found = calibrate(HERE, timed.append, layers=SMALL)
    rounds = [text for text in timed if "round" in text]
    assert "round 3 of 3" in rounds[0]
    assert all(len(taken) == 3 for taken in found.measurements.taken.values())
    assert found.measurements.path.exists()
    found.measurements.forget()
    assert not found.measurements.path.exists()


@arm64
@pytest.mark.skipif(missing() is not None, reason=f"instructions not counted: {missing()}")
@pytest.mark.slow
def test_counted() -> None:
    found = calibrate(target_named("aarch64-android", "cortex-a55"), quiet, layers=SMALL)
    assert found.profile.name == "cortex-a55"
    assert found.profile.origin.startswith("instructions executed under QEMU")
    again = calibrate(target_named("aarch64-linux", "cortex-a55"), quiet, layers=SMALL)
    assert again.taken == found.taken
    assert again.profile == found.profile


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        (target_named("x86_64-linux", "x86-64-v4"), "x86_64-linux, x86-64-v4: this computer cannot execute its code"),
        (target_named("aarch64-linux", "cortex-a53"), "no plugins here"),
    ],
)
def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, target: Target, complaint: str) -> None:
    monkeypatch.setattr(measure, "executes_here", lambda target: False)
    monkeypatch.setattr(measure, "missing", lambda: "no plugins here")
    with pytest.raises(PccError, match=complaint):
        calibrate(target, quiet, layers=SMALL)


def test_multiply_adds_weigh_what_the_processor_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts are of all instructions; on a core with one unit a multiply-add counts more."""
    weights = {
        cpu: machine_of(target_named("aarch64-linux", cpu)).multiply_add_weight
        for cpu in ("cortex-a53", "cortex-a76", "cortex-x1")
    }
    assert weights["cortex-a53"] > weights["cortex-a76"] == 1 > weights["cortex-x1"]
