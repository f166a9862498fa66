"""Reconstruction as a stage of a recipe; what it computes is tested in tests/training/test_reconstruct.py."""

from pathlib import Path

import pytest

from pcc.errors import PccError
from pcc.training.methods.reconstruct import Reconstruct
from tests.training.methods.loop import data, net, run

DENSE = "train: {batch: 60, lr: 0.1}\nstages: [{train: {epochs: 6}}]"
CUT = (
    'structures: {conv2: {kernels: {patterns: designed, rate: 2}}, "@linear": {unstructured: {rate: 4}}}\nstages: '
    "[METHOD]"
)


def test_it_saves_what_one_shot_pruning_loses(tmp_path: Path) -> None:
    accuracy = {}
    for method in ("one-shot: {}", "reconstruct: {samples: 120}"):
        model = net()
        dense = run(model, DENSE, tmp_path / "dense").accuracy
        accuracy[method] = run(model, CUT.replace("METHOD", f"{{{method}}}"), tmp_path / "cut").accuracy
        assert int(model.fc1.weight.count_nonzero()) == model.fc1.weight.numel() // 4
        assert int(model.conv2.weight.count_nonzero()) == 8 * 12 // 2 * 4
    assert dense > 0.95
    once, fitted = accuracy.values()
    assert once < fitted
    assert fitted > dense - 0.1


def test_more_samples_than_there_are() -> None:
    with pytest.raises(PccError, match="reconstruct: 500 samples of 240 training samples; give 1 to as many"):
        Reconstruct(net(), {}, data=data(), seed=0, samples=500)
