"""Methods with random masks under torchrun: all processes draw the same masks and learn the same probabilities."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pcc.training.methods.probmask import ProbMask
from tests.training.methods.loop import data
from tests.training.test_distributed import NET, ONE, TWO, prune

RECIPE = """
train: {batch: 32, lr: 0.02}
stages:
  - vrpge: {epochs: 2, rate: 2, score_lr: 0.05}
  - probmask: {epochs: 3, rate: 4, score_lr: 0.05}
  - cluster: {epochs: 1, structures: {fc: {centroids: {clusters: 4}}}}
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


@pytest.mark.slow
def test_two_processes_find_what_one_finds(job: Path) -> None:
    alone, together = prune(ONE, job, "make", "one"), prune(TWO, job, "make", "two")
    assert (alone.returncode, together.returncode) == (0, 0), alone.stderr + together.stderr
    states = [load_file(job / folder / "model.safetensors") for folder in ("one", "two")]
    kept = 0
    for name in ("conv1.weight", "conv2.weight", "fc.weight"):
        masks = [state[name] != 0 for state in states]
        assert bool((masks[0] == masks[1]).all()), name
        assert float((states[0][name] - states[1][name]).abs().max()) < 1e-3
        kept += int(masks[1].sum()) if name != "fc.weight" else 0
    assert 0 < kept <= (72 + 576) / 4
    assert len(states[1]["fc.weight"].unique()) == 4


class Tied(nn.Module):
    """Two layers with one weight; the last layer is defined first."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 4)
        self.conv = nn.Conv2d(1, 16, 3, padding=1)
        self.left, self.right = nn.Linear(16, 16), nn.Linear(16, 16)
        self.right.weight = self.left.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.right(self.left(self.conv(x).relu().mean((2, 3))).relu()).relu())


def test_tied_layers_have_one_mask_and_what_runs_last_stays_dense() -> None:
    torch.manual_seed(0)
    model = Tied()
    method = ProbMask(model, {}, epochs=4, data=data(), rate=4)
    assert list(method.shapes) == ["conv", "left"]
    method.scores.data.copy_(torch.rand(len(method.scores)))
    method.epoch = 4
    method.update()
    method.finish()
    assert model.left.weight is model.right.weight
    kept = int(model.conv.weight.count_nonzero()) + int(model.left.weight.count_nonzero())
    assert kept == method.kept == (16 * 9 + 16 * 16) // 4
    assert bool((model.head.weight != 0).all())
