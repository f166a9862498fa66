"""Recipes that train in bf16, on devices with and without instructions for it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pcc.training.processes import Processes
from pcc.training.recipe import parse_recipe
from tests.training.methods.loop import net, run

BF16 = "train: {batch: 48, precision: bf16}\nstages: [{train: {epochs: 2}}]"
CPU = Processes(0, 1, torch.device("cpu"))
Has = Callable[..., None]


@pytest.fixture
def processor_has(monkeypatch: pytest.MonkeyPatch) -> Has:
    """What `torch.cpu.get_capabilities` says."""

    def has(*names: str) -> None:
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda: {"avx2": True, "bf16": False} | dict.fromkeys(names, True)
        )

    return has


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"])
def test_instructions(name: str, processor_has: Has) -> None:
    processor_has()
    assert not CPU.multiplies_bf16
    processor_has(name)
    assert CPU.multiplies_bf16


@pytest.mark.parametrize(("names", "kind"), [((), torch.float32), (("avx512_bf16",), torch.bfloat16)])
def test_bf16_is_for_devices_that_multiply_in_it(
    names: tuple[str, ...], kind: torch.dtype, processor_has: Has, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor_has(*names)
    kinds, model = set[torch.dtype](), net()
    model.register_forward_hook(lambda _, __, scores: kinds.add(scores.dtype) if model.training else None)
    run(model, BF16, tmp_path)
    assert kinds - {torch.float32} == {kind} - {torch.float32}


def test_without_bf16_a_run_is_that_of_fp32(processor_has: Has, tmp_path: Path) -> None:
    processor_has()
    first, second = net(), net()
    second.load_state_dict(first.state_dict())
    run(first, BF16, tmp_path / "first")
    run(second, BF16.replace("bf16", "fp32"), tmp_path / "second")
    for name, value in first.state_dict().items():
        torch.testing.assert_close(value, second.state_dict()[name], rtol=0, atol=0)


def test_accuracies_that_are_reported_are_those_of_fp32(
    processor_has: Has, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor_has("avx512_bf16")
    measured = list[bool]()

    def accuracy(*_: object, bf16: bool = False) -> float:
        measured.append(bf16)
        return len(measured) / 10

    monkeypatch.setattr("pcc.training.trainer.accuracy", accuracy)
    one_shot = "{one-shot: {structures: {fc1: {unstructured: {rate: 4}}}}}"
    outcome = run(net(), BF16.replace("epochs: 2}}]", f"epochs: 1}}}}, {one_shot}]"), tmp_path)
    assert [row["stage"] for row in outcome.rows] == ["as it came in", "train", "train, done", "one-shot, done"]
    assert measured == [False, True, False, False]
    assert (outcome.dense_accuracy, outcome.accuracy) == (0.3, 0.4)


def test_recipes_say_whether_they_have_bf16() -> None:
    recipe = parse_recipe("stages: [{train: {epochs: 1}}, {train: {epochs: 1, train: {precision: bf16}}}]")
    assert recipe.has_bf16
    assert not recipe.in_fp32().has_bf16
    assert recipe.in_fp32().stages[0] == recipe.stages[0]
