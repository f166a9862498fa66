"""`pcc.compress`: a file and tensors in; and what distillation adds."""

from pathlib import Path

import pytest
import torch
from torch import nn

import pcc
from pcc.compression.network import open_subject
from pcc.frontend.imported import import_model
from pcc.frontend.save import WRITERS
from pcc.training.distill import distill
from pcc.training.layers import prunable
from tests.nets import Residual, settle


def smooth(count: int, seed: int) -> torch.Tensor:
    noise = torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(noise, size=16, mode="bilinear")


def test_an_onnx_file_stays_one(tmp_path: Path) -> None:
    WRITERS[".onnx"](import_model(settle(Residual()), torch.zeros(2, 3, 16, 16)), tmp_path / "net.onnx")
    report = pcc.compress(
        tmp_path / "net.onnx", smooth(60, 0), tmp_path / "out", macs=0.6, minutes=0.02, target="aarch64-linux"
    )
    assert report.macs <= 0.6
    assert "steps of distillation" in report.note
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"model.onnx", "package", "recipe.yaml"}
    again = open_subject(tmp_path / "out" / "model.onnx", None)
    kept = {name: float((module.weight != 0).float().mean()) for name, module in prunable(again.module).items()}
    assert len(kept) == len(report.layers)
    assert min(kept.values()) < 0.7


def test_distillation_comes_nearer_and_keeps_the_zeros() -> None:
    teacher, student = settle(Residual()), settle(Residual())
    with torch.no_grad():
        for module in prunable(student).values():
            module.weight.mul_(torch.rand(module.weight.shape, generator=torch.Generator().manual_seed(1)) < 0.7)
    zeros = {name: module.weight == 0 for name, module in prunable(student).items()}
    x = smooth(64, 0)
    with torch.no_grad():
        before = (student(x) - teacher(x)).square().mean()
    assert distill(student, teacher, x, 3.0) > 10
    with torch.no_grad():
        assert (student(x) - teacher(x)).square().mean() < 0.9 * before
    for name, module in prunable(student).items():
        assert torch.equal(module.weight == 0, zeros[name])


def test_what_cannot_be_compressed() -> None:
    with pytest.raises(pcc.PccError, match="give input_shape"):
        pcc.compress(Residual(), smooth(60, 0), "out", macs=0.5)
    with pytest.raises(pcc.PccError, match="no such file"):
        pcc.compress("net.onnx", smooth(60, 0), "out", macs=0.5)
    with pytest.raises(pcc.PccError, match="the network takes fp32"):
        pcc.compress(Residual(), smooth(60, 0), "out", macs=0.5, input_shape=(3, 8, 8))
