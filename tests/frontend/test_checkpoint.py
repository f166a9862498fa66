"""Checkpoints: every layout that people have, and each way to be wrong in one line."""

import re
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pcc.errors import PccError
from pcc.frontend.checkpoint import load_weights


def net() -> nn.Module:
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4)))


def filled() -> dict[str, Tensor]:
    return {key: torch.full_like(value, index + 1) for index, (key, value) in enumerate(net().state_dict().items())}


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}, lambda s: {f"module.{k}": v for k, v in s.items()}]
)
@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_torch_layouts(tmp_path: Path, wrap, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.save(wrap(filled()), path)
    module = net()
    load_weights(module, path)
    assert all(torch.equal(value, filled()[key]) for key, value in module.state_dict().items())


def test_safetensors_also_of_half_precision(tmp_path: Path) -> None:
    save_file({key: value.half() if value.is_floating_point() else value for key, value in filled().items()}, tmp_path / "weights.safetensors")
    module = net()
    load_weights(module, tmp_path / "weights.safetensors")
    assert module.state_dict()["bn.weight"].dtype == torch.float32
    assert torch.equal(module.state_dict()["conv.bias"], filled()["conv.bias"])


def test_counters_of_batch_norm_may_be_missing(tmp_path: Path) -> None:
    state = filled()
    del state["bn.num_batches_tracked"]
    torch.save(state, tmp_path / "w.pt")
    load_weights(net(), tmp_path / "w.pt")


def test_keys_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = {f"layer.{i}.weight": torch.zeros(1) for i in range(5)} | {"conv.weight": torch.zeros(4, 3, 5, 5)}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(PccError) as caught:
        load_weights(net(), tmp_path / "w.pt")
    assert str(caught.value) == (
        "weights 'w.pt' do not fit Sequential: 5 missing: conv.bias, bn.weight, bn.bias and 2 more;"
        " 5 unexpected: layer.0.weight, layer.1.weight, layer.2.weight and 2 more;"
        " 1 of another shape: conv.weight (4x3x5x5, model has 4x3x3x3)"
    )


def test_nothing_is_loaded_when_keys_do_not_fit(tmp_path: Path) -> None:
    torch.save({**filled(), "extra": torch.zeros(1)}, tmp_path / "w.pt")
    module = net()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(PccError, match="1 unexpected: extra"):
        load_weights(module, tmp_path / "w.pt")
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


class Opens:
    """What a hostile pickle does: call a function when it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_pickles_that_run_code_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": filled(), "hook": Opens(str(tmp_path / "pwned"))}, tmp_path / "w.pt")
    with pytest.raises(PccError, match="refused, reading it would run code"):
        load_weights(net(), tmp_path / "w.pt")
    torch.save(net(), tmp_path / "whole.pt")
    with pytest.raises(PccError, match="refused"):
        load_weights(net(), tmp_path / "whole.pt")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(tmp_path: Path, value: float) -> None:
    state = filled()
    state["bn.running_var"][1] = value
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(PccError, match=r"not finite: bn.running_var \("):
        load_weights(net(), tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("w.bin", b"", "choose a .pt, .pth or .safetensors"),
        ("w.safetensors", b"not safetensors at all", "'w.safetensors' cannot be read"),
        ("w.pt", b"not a zip", "'w.pt' cannot be read"),
        ("gone.pt", None, "there is no file"),
    ],
)
def test_files_that_are_not_checkpoints(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PccError, match=words) as caught:
        load_weights(net(), tmp_path / name)
    assert "\n" not in str(caught.value)


def test_an_archive_that_grows_is_refused(tmp_path: Path) -> None:
    """A million zeros are a thousand bytes, and a file of some megabytes could be all of the memory."""
    torch.save({"weight": torch.zeros(1_000_000)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(PccError, match=r"weights '.*w.pt' has .* bytes and would take 4,000,.*: PyTorch compresses no archive"):
        load_weights(net(), tmp_path / "w.pt")


def test_tensors_that_are_not_plain_numbers(tmp_path: Path) -> None:
    for bend, words in ((lambda x: x.to_sparse(), "sparse_coo"), (lambda x: x.to(torch.complex64), "complex64"), (lambda x: x.to("meta"), "meta")):
        state = filled()
        key = next(iter(state))
        state[key] = bend(state[key])
        torch.save(state, tmp_path / "w.pt")
        with pytest.raises(PccError, match=rf"not plain real numbers: {re.escape(key)} \({words}"):
            load_weights(net(), tmp_path / "w.pt")


def test_dict_without_tensors(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "best": 0.5}, tmp_path / "w.pt")
    with pytest.raises(PccError, match="not a state dict"):
        load_weights(net(), tmp_path / "w.pt")
