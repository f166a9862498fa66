"""What MODEL and --weights mean."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pcc.cli.shapes import InputShape
from pcc.cli.source import open_source
from pcc.errors import PccError

FACTORY = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 6 * 6, 5))

def not_a_module():
    return 3
"""
SHAPE = (InputShape(None, (1, 3, 6, 6)),)


@pytest.fixture
def factory(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(FACTORY)
    return f"{tmp_path}/net.py:make"


def test_zoo_model_with_random_weights() -> None:
    source = open_source("lenet5", "none", ())
    assert source.name == "lenet5"
    assert tuple(source.examples[0].shape) == (1, 1, 28, 28)
    assert source.labels == tuple("0123456789")
    assert source.preprocessing is not None


def test_preprocessing_follows_the_input_shape() -> None:
    source = open_source("mobilenet_v2", "none", (InputShape(None, (1, 3, 160, 160)),))
    assert source.preprocessing is not None
    assert (source.preprocessing.size, source.preprocessing.resize) == (160, 183)
    source = open_source("mobilenet_v2", "none", (InputShape(None, (1, 3, 160, 96)),))
    assert source.preprocessing is not None
    assert source.preprocessing.shape == (1, 3, 160, 96)
    assert source.preprocessing.resize == 110


def test_factory_keeps_the_weights_it_made(factory: str) -> None:
    source = open_source(factory, None, SHAPE)
    assert source.name == "make"
    assert not source.model.training
    assert source.model(source.examples[0]).shape == (1, 5)


def test_checkpoint_of_a_factory(factory: str, tmp_path: Path) -> None:
    state = {
        name: torch.full_like(value, 0.5)
        for name, value in open_source(factory, None, SHAPE).model.state_dict().items()
    }
    save_file(state, tmp_path / "w.safetensors")
    module = open_source(factory, str(tmp_path / "w.safetensors"), SHAPE).model
    assert all((value == 0.5).all() for value in module.state_dict().values())


def test_unknown_model_names_the_nearest() -> None:
    with pytest.raises(PccError, match=r"no model 'resnet5'.*resnet50"):
        open_source("resnet5", None, ())


def test_factory_needs_a_shape(factory: str) -> None:
    with pytest.raises(PccError, match="give --input-shape"):
        open_source(factory, None, ())


@pytest.mark.parametrize("name", ["net.py:missing", "missing.py:make", "net.py", "net.py:not_a_module"])
def test_factories_that_give_no_module(factory: str, name: str) -> None:
    with pytest.raises(PccError, match=name.rsplit(":", 1)[-1] if "missing" in name else "net.py"):
        open_source(f"{Path(factory).parent}/{name}", None, SHAPE)


@pytest.mark.parametrize("shape", [(1, 4, 224, 224), (3, 224, 224)])
def test_shape_that_does_not_fit_the_zoo_model(shape: tuple[int, ...]) -> None:
    with pytest.raises(PccError, match="takes one input N,3,H,W"):
        open_source("resnet18", "none", (InputShape(None, shape),))


def test_weights_that_do_not_fit_name_the_keys(factory: str, tmp_path: Path) -> None:
    torch.save({"0.weight": torch.zeros(8, 3, 3, 3), "5.bias": torch.zeros(2)}, tmp_path / "w.pt")
    with pytest.raises(PccError) as caught:
        open_source(factory, str(tmp_path / "w.pt"), SHAPE)
    for key in ("0.bias", "3.weight", "5.bias"):
        assert key in str(caught.value)


def test_weights_with_nan_name_the_layer(factory: str, tmp_path: Path) -> None:
    state = open_source(factory, None, SHAPE).model.state_dict()
    state["3.weight"][2, 7] = float("nan")
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(PccError, match=r"3\.weight"):
        open_source(factory, str(tmp_path / "w.pt"), SHAPE)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_that_are_no_checkpoint(factory: str, tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(PccError, match="w"):
        open_source(factory, str(path), SHAPE)


class _Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_pickles_that_execute_code_are_refused(factory: str, tmp_path: Path) -> None:
    torch.save({"0.weight": _Attack(tmp_path / "executed")}, tmp_path / "torch.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(_Attack(tmp_path / "executed")))
    for name in ("torch.pt", "plain.pt"):
        with pytest.raises(PccError, match=name):
            open_source(factory, str(tmp_path / name), SHAPE)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("weights", ["trained", "imagenet"])
def test_own_weights_are_for_the_zoo(factory: str, weights: str) -> None:
    with pytest.raises(PccError, match="zoo"):
        open_source(factory, weights, SHAPE)


def test_zoo_model_without_trained_weights_says_so() -> None:
    with pytest.raises(PccError, match="resnet18 has no trained weights"):
        open_source("resnet18", None, ())


def test_what_holds_no_network_is_said_to_hold_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "manifest.json").touch()
    with pytest.raises(PccError, match=r"'.*net' is a package, .*: give the model it was compiled from$"):
        open_source(str(tmp_path / "net"), None, ())
    (tmp_path / "net").rename(tmp_path / "lenet5")
    monkeypatch.chdir(tmp_path)
    assert open_source("lenet5", "none", ()).name == "lenet5"
    torch.save({"weight": torch.zeros(3)}, tmp_path / "net.pth")
    with pytest.raises(PccError, match=r"'.*net.pth' is no model file: a checkpoint is for --weights"):
        open_source(str(tmp_path / "net.pth"), None, ())


def test_more_shapes_than_inputs(factory: str) -> None:
    with pytest.raises(
        PccError, match=r"--input-shape says 2 inputs, but .*net.py:make has forward\(input\): give one"
    ):
        open_source(factory, None, SHAPE * 2)
