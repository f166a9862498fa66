"""`pcc.compress`: a file and tensors in; and what distillation adds."""

from pathlib import Path

import pytest
import torch
from torch import nn

import pcc
from pcc.frontend.checkpoint import read_safetensors
from pcc.frontend.imported import import_model
from pcc.training.distill import SETTINGS, distances, distill
from pcc.training.from_file import open_file
from pcc.training.layers import prunable
from tests.nets import Residual, settle


def smooth(count: int, seed: int) -> torch.Tensor:
    noise = torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(noise, size=16, mode="bilinear")


@pytest.mark.slow
def test_an_archive_stays_one(tmp_path: Path) -> None:
    net, batch = settle(Residual()), torch.export.Dim("n")
    exported = torch.export.export(net, (torch.zeros(2, 3, 16, 16),), dynamic_shapes=({0: batch},))
    torch.export.save(exported, tmp_path / "net.pt2")
    out = tmp_path / "out"
    report = pcc.compress(
        tmp_path / "net.pt2",
        smooth(60, 0),
        out,
        macs=0.6,
        minutes=0.02,
        target="aarch64-linux",
        input_shape=(3, 16, 16),
    )
    assert report.macs <= 0.6
    assert "steps of distillation" in report.note
    options = "--target aarch64-linux --cpu cortex-a53"
    assert report.compile == f"pcc compile {out / 'model.pt2'} {options} -o {out / 'package'}"
    imported = import_model(out / "model.pt2")
    x = smooth(1, 1)
    state = read_safetensors(out / "model.safetensors")
    for row in (row for row in report.layers if "of its filters" not in row.structure):
        kept = float((state[f"{row.layer}.weight"] != 0).float().mean())
        assert kept == pytest.approx(row.kept, rel=0.05), row.layer
    fitted = open_file(tmp_path / "net.pt2", (3, 16, 16)).module
    fitted.load_state_dict(state)
    torch.testing.assert_close(imported.graph(x)[0], fitted.eval()(x))


def test_distillation_comes_nearer_and_keeps_the_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pcc.training.distill.SETTINGS", SETTINGS.model_copy(update={"lr": 1e-3}))  # a small network
    teacher, student = settle(Residual()), settle(Residual())
    with torch.no_grad():
        for module in prunable(student).values():
            module.weight.mul_(torch.rand(module.weight.shape, generator=torch.Generator().manual_seed(1)) < 0.7)
    zeros = {name: module.weight == 0 for name, module in prunable(student).items()}
    x = smooth(64, 0)
    (same,) = distances([teacher], teacher, [x])
    assert same == pytest.approx(0, abs=1e-6)
    (far,) = distances([student], teacher, x.split(48))
    with torch.no_grad():
        before = (student(x) - teacher(x)).square().mean()
    steps, after = 0, before
    for _ in range(20):  # a busy computer may take a second for the first step
        steps += distill(student, teacher, x, 2.0)
        with torch.no_grad():
            after = (student(x) - teacher(x)).square().mean()
        if after < 0.9 * before:
            break
    assert steps
    assert after < 0.9 * before
    (near,) = distances([student], teacher, x.split(48))
    assert near < far
    for name, module in prunable(student).items():
        assert torch.equal(module.weight == 0, zeros[name])


def test_what_cannot_be_compressed() -> None:
    with pytest.raises(pcc.PccError, match="give input_shape"):
        pcc.compress(Residual(), smooth(60, 0), "out", macs=0.5)
    with pytest.raises(pcc.PccError, match="no such file"):
        pcc.compress("net.onnx", smooth(60, 0), "out", macs=0.5)
    with pytest.raises(pcc.PccError, match="the network takes fp32"):
        pcc.compress(Residual(), smooth(60, 0), "out", macs=0.5, input_shape=(3, 8, 8))
