"""Methods with random masks under torchrun: all processes draw the same masks and learn the same probabilities."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

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
