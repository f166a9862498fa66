"""Tuning from a network to what a compilation chooses: timed on this machine, counted on an emulated one, and with
ratios that nobody measured."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from pcc.codegen import tuning_records
from pcc.codegen.machine import Machine, Work, machine_of
from pcc.codegen.tuning_records import TuningRecords
from pcc.compile_report import CompileReport
from pcc.compiler import compile_model
from pcc.deploy.counting_qemu import missing
from pcc.deploy.host import Host
from pcc.package import open_package
from pcc.passes.pipeline import DEFAULT_PIPELINE
from pcc.planner import open_graph
from pcc.progress import Watch, quiet
from pcc.target import Target, executes_here, target_named
from pcc.tune import tuner
from pcc.tune.search import Search
from pcc.tune.tuner import ProcessorJudge, TunedLayer, mean_speedup, tune
from tests.arm64 import arm64

HERE = target_named("x86_64-linux")
ARM = target_named("aarch64-linux", "cortex-a76")
on_this_computer = pytest.mark.skipif(not executes_here(HERE), reason="this computer does not execute x86-64-v3 code")
EXAMPLES = (torch.zeros(1, 3, 16, 16),)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        *(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()) for _ in range(3)),
    ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10)).eval()


def tuned(
    path: Path, target: Target = HERE, trials: int = 4, watch: Watch = quiet, machine: Machine | None = None
) -> list[TunedLayer]:
    machine = machine or machine_of(target)
    graph = open_graph(network(), EXAMPLES, DEFAULT_PIPELINE, target)
    return tune(graph, ProcessorJudge(target, machine), machine, path, trials, watch)


def compiled(path: Path, folder: Path, target: Target = HERE) -> CompileReport:
    return compile_model(
        network(),
        EXAMPLES,
        out=folder,
        targets=[target],
        name="net",
        machine_profile="built-in",
        tuning_records=str(path),
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """In place of measurements: each schedule takes half of what the costs choose the first time, and what `asked` was
    told to say in the end."""
    texts: list[str] = []

    def ratios(self: ProcessorJudge, layer, base, schedules: Sequence[Any], rounds: int) -> dict[str, float]:
        texts.extend(each.text for each in schedules)
        return {each.text: 0.5 + 0.01 * place for place, each in enumerate(schedules)}

    monkeypatch.setattr(ProcessorJudge, "ratios", ratios)
    return texts


@on_this_computer
def test_timed_and_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tuner, "ROUNDS", 3)
    monkeypatch.setattr(tuner, "LAST_ROUNDS", 5)
    shown: list[str] = []
    layers = tuned(tmp_path / "folder" / "records", watch=lambda text, done: shown.append(text))
    assert [layer.names for layer in layers] == [("0",), ("3.0", "4.0", "5.0"), ("7",)], "equal layers are tuned once"
    assert any("layer 2 of 3, 3.0 and 2 more: " in text and "best so far" in text for text in shown)
    assert all(layer.record.speedup >= 1 and layer.record.schedules == 4 for layer in layers)
    assert all((layer.record.best == layer.record.costs_choice) == (layer.record.speedup == 1) for layer in layers)

    (target,) = compiled(tmp_path / "folder" / "records", tmp_path / "package").targets
    uses = [layer.choice.tuning for layer in target.layers if layer.choice]
    assert [use and use.speedup for use in uses] == [layer.record.speedup for layer in layers for _ in layer.names]
    assert [layer.choice.schedule.text for layer in target.layers if layer.choice] == [
        layer.best.partition(", ")[2] for layer in layers for _ in layer.names
    ]
    package = open_package(tmp_path / "package")
    assert [layer.choice.tuning for layer in package.manifest.targets[0].layers if layer.choice] == uses
    assert Host().selftest(package).passed


def test_a_faster_schedule_takes_the_place_of_the_costs_choice(asked: list[str], tmp_path: Path) -> None:
    layers = tuned(tmp_path / "records")
    assert {layer.record.speedup for layer in layers} == {2.0}
    assert asked
    asked.clear()
    assert tuned(tmp_path / "records") == layers
    assert not asked, "what is measured is not measured again"
    assert tuned(tmp_path / "records", trials=6)[0].record.schedules == 6
    assert asked, "more trials go on where the last call ended"

    report = compiled(tmp_path / "records", tmp_path / "package").targets[0]
    assert [use.speedup for use in report.tuning] == [2.0] * 5
    assert report.records_file == tmp_path / "records"


def test_never_slower(asked: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A schedule that looked faster when it was found, and is not when it is measured again, is not used."""
    lucky = ProcessorJudge.ratios

    def ratios(judge: ProcessorJudge, layer: Any, base: Any, schedules: Any, rounds: int) -> dict[str, float]:
        measured = lucky(judge, layer, base, schedules, rounds)
        return {text: 0.99 if rounds == tuner.LAST_ROUNDS else ratio for text, ratio in measured.items()}

    monkeypatch.setattr(ProcessorJudge, "ratios", ratios)
    for layer in tuned(tmp_path / "records"):
        assert (layer.record.best, layer.record.speedup) == (layer.record.costs_choice, 1.0)
    report = compiled(tmp_path / "records", tmp_path / "package").targets[0]
    plain = compile_model(
        network(),
        EXAMPLES,
        out=tmp_path / "plain",
        targets=[HERE],
        name="net",
        machine_profile="built-in",
        tuning_records="none",
    )
    assert [layer.choice and layer.choice.schedule for layer in report.layers] == [
        layer.choice and layer.choice.schedule for layer in plain.targets[0].layers
    ]
    assert not plain.targets[0].tuning


def test_an_interrupted_one_goes_on(asked: list[str], tmp_path: Path) -> None:
    def interrupt(text: str, done: float) -> None:
        if "layer 3" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path / "records", watch=interrupt)
    before = len(asked)
    layers = tuned(tmp_path / "records")
    assert 0 < before < len(asked)
    with TuningRecords(tmp_path / "records") as records:
        for layer in layers:
            key = tuning_records.Key(
                *(getattr(layer.record, name) for name in ("layer", "structure", "dtype", "processor"))
            )
            assert len(records.ratios(key, layer.record.costs_choice)) == layer.record.schedules - 1, (
                "all but the costs' choice, each once"
            )


@pytest.mark.parametrize("what", ["kernels", "costs"])
def test_a_record_that_says_nothing_now_is_named(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    with monkeypatch.context() as patch:
        if what == "kernels":
            for module in (tuning_records, tuner):
                patch.setattr(module, "generation", lambda: "another")
            tuned(tmp_path / "records")
        else:  # a profile by which a vector multiply-add costs a thousand stores chooses others
            machine = machine_of(HERE)
            tuned(tmp_path / "records", machine=replace(machine, costs=Work(stores=1.0)))
    report = compiled(tmp_path / "records", tmp_path / "package").targets[0]
    reasons = {use.reason for use in report.tuning if use.speedup is None}
    assert reasons == {
        {
            "kernels": "tuned with another version of the kernels: tune again",
            "costs": "tuned beside another choice of the costs: tune again",
        }[what]
    }


@arm64
@pytest.mark.skipif(missing() is not None, reason=f"instructions not counted: {missing()}")
def test_counted(tmp_path: Path) -> None:
    layers = tuned(tmp_path / "records", ARM, trials=3)
    assert {layer.record.processor for layer in layers} == {"cortex-a76"}
    again = tuned(tmp_path / "again", ARM, trials=3)
    assert again == layers, "counts are the same at every call"
    report = compiled(tmp_path / "records", tmp_path / "package", ARM).targets[0]
    assert len(report.tuning) == 5


def test_a_search_asks_for_each_schedule_once() -> None:
    from pcc.tune.network import network_layers

    (layer, *_) = network_layers(open_graph(network(), EXAMPLES, DEFAULT_PIPELINE, HERE), "processor")
    machine = machine_of(HERE)
    schedules = list({each.text: each for each in layer.open.schedules(machine)}.values())[:40]
    search, seen = Search(schedules, schedules[:2], {schedules[5].text: 1.0}), []
    while asked := search.ask(3):
        assert len(asked) <= 3
        seen += [each.text for each in asked]
        search.tell({each.text: 1.0 + len(each.text) / 100 for each in asked})
    assert seen[:2] == [each.text for each in schedules[:2]]
    assert sorted(seen) == sorted(each.text for each in schedules if each != schedules[5])


def test_equal_layers_count_as_often_as_they_are_there() -> None:
    records: list[Any] = [SimpleNamespace(speedup=speedup) for speedup in (4.0, 1.0)]
    layers = [TunedLayer(("a",), "", "", records[0]), TunedLayer(("b", "c", "d"), "", "", records[1])]
    assert mean_speedup(layers) == pytest.approx(4**0.25)
