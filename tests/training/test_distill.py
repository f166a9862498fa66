"""Distillation looks at small samples first, where a network takes them."""

from itertools import count

import pytest
import torch
from torch import nn

from pcc.training.distill import SETTINGS, distill, small_size
from tests.nets import Residual, settle


@pytest.mark.parametrize(
    ("sides", "small"),
    [((224, 224), (160, 160)), ((128, 256), (96, 192)), ((100, 96), (96, 96)), ((32, 32), (32, 32))],
)
def test_small_samples(sides: tuple[int, int], small: tuple[int, int]) -> None:
    assert small_size(nn.AdaptiveAvgPool2d(1), torch.zeros(2, 3, *sides)) == small
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(3 * sides[0] * sides[1], 2))
    assert small_size(fixed, torch.zeros(2, 3, *sides)) == sides


def test_small_samples_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = count()
    monkeypatch.setattr("pcc.training.distill.perf_counter", lambda: float(next(seconds)))
    monkeypatch.setattr("pcc.training.distill.SETTINGS", SETTINGS.model_copy(update={"batch": 1}))
    teacher, student = settle(Residual()), settle(Residual())
    seen: list[int] = []
    student.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[2]))
    steps = distill(student, teacher, torch.rand(4, 3, 128, 128), 20.0)
    looked_at = seen[-steps:]
    assert looked_at == sorted(looked_at)
    assert set(looked_at) == {96, 128}
