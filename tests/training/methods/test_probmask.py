from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pcc.errors import PccError
from pcc.training.layers import prunable
from pcc.training.methods.probmask import ProbMask, relaxed
from tests.training.methods.loop import data, net, run, run_interrupted, same

RECIPE = """
train: {batch: 24, lr: 0.05, weight_decay: 0, clip: 3}
stages:
  - probmask: {epochs: 8, rate: 5, score_lr: 0.02}
  - train: {epochs: 2}
"""


def test_relaxed_masks_become_draws_with_the_given_probabilities() -> None:
    scores = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0]).repeat_interleave(4000)
    warm, cold = (
        relaxed(scores, temperature, torch.Generator().manual_seed(0)).reshape(5, 4000) for temperature in (1.0, 1e-4)
    )
    assert bool(((cold < 1e-3) | (cold > 1 - 1e-3)).float().mean() > 0.99)
    assert torch.allclose(cold.mean(dim=1), torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0]), atol=0.02)
    assert bool(((warm[2] > 0.2) & (warm[2] < 0.8)).float().mean() > 0.5)


def test_gradients_follow_the_chain_rule_and_stay_finite() -> None:
    scores = torch.tensor([0.0, 0.3, 0.7, 1.0], requires_grad=True)
    values = torch.tensor([1.0, -2.0, 3.0, 4.0])
    (values * relaxed(scores, 0.5, torch.Generator().manual_seed(1))).sum().backward()
    assert scores.grad is not None
    assert bool(scores.grad.isfinite().all())
    step = 1e-3
    for index in (1, 2):
        moved = []
        for sign in (1, -1):
            near = scores.detach().clone()
            near[index] += sign * step
            moved.append(float((values * relaxed(near, 0.5, torch.Generator().manual_seed(1))).sum()))
        assert float(scores.grad[index]) == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=0.01)


def test_the_kept_share_falls_as_a_cubic_and_the_temperature_in_a_line() -> None:
    method = ProbMask(net(), {}, epochs=100, data=data(), rate=10)
    shares, temperatures = [], []
    for method.epoch in (0, 16, 38, 60, 99):
        shares.append(method.total / len(method.scores))
        temperatures.append(method.temperature)
    final = method.kept / len(method.scores)
    assert shares == pytest.approx([1, 1, final + (1 - final) / 8, final, final])
    assert temperatures == pytest.approx([1, 1 - 0.97 * 0.16, 1 - 0.97 * 0.38, 1 - 0.97 * 0.6, 1 - 0.97 * 0.99])


def test_ends_as_a_plain_module_with_an_exact_budget() -> None:
    model, plain = net(), net()
    parameters = dict(model.named_parameters())
    method = ProbMask(model, {"conv1": None}, epochs=6, data=data(), rate=20, score_lr=0.02, seed=1)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.02)
    assert method.scores not in set(method.parameters())
    for epoch in method:
        for x, y in data().batches(epoch, 24, seed=0):
            optimizer.zero_grad()
            method.backward(lambda x=x, y=y: F.cross_entropy(model(x), y))
            optimizer.step()
            method.after_step()
            assert float(method.scores.detach().double().sum()) <= method.total + 1e-3
    kept = {name: int(module.weight.count_nonzero()) for name, module in prunable(model).items()}
    assert kept["conv2"] + kept["fc1"] == round((864 + 768) / 20)
    assert (kept["conv1"], kept["fc2"]) == (72, 64)
    assert type(model.conv2) is nn.Conv2d
    assert set(model.state_dict()) == set(plain.state_dict())
    assert all(dict(model.named_parameters())[name] is parameter for name, parameter in parameters.items())


def test_learns_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    model = net()
    outcome = run(model, RECIPE, tmp_path / "once")
    assert outcome.accuracy > 0.8
    resumed = net()
    run_interrupted(net(), resumed, RECIPE, tmp_path / "resumed", epoch=5)
    assert same(model, resumed)


def test_wrong_use() -> None:
    with pytest.raises(PccError, match="give 1 epoch or more"):
        ProbMask(net(), {}, epochs=0, data=data(), rate=2)
    with pytest.raises(PccError, match="score_lr is -1"):
        ProbMask(net(), {}, epochs=2, data=data(), rate=2, score_lr=-1)
    with pytest.raises(PccError, match="give 2 epochs or more"):
        ProbMask(net(), {}, epochs=1, data=data(), rate=2)
