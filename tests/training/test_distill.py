"""Distillation looks at small samples first, where a network takes them."""

import copy
from itertools import count

import pytest
import torch
from torch import nn

from pcc.training.distill import LEAST_SIZE, SETTINGS, _loss, _optimizer, distances, distill, small_size
from pcc.training.methods.train import Train
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


def test_statistics_of_batch_norms_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = count()
    monkeypatch.setattr("pcc.training.distill.perf_counter", lambda: float(next(seconds)))
    teacher, student = settle(Residual()), settle(Residual()).train().requires_grad_(False)  # frozen ones learn, too
    before = {name: value.clone() for name, value in student.named_buffers()}
    weight = student.get_parameter(next(name for name, _ in student.named_parameters())).clone()
    assert distill(student, teacher, torch.rand(8, 3, 16, 16), 10.0)
    for name, value in student.named_buffers():
        assert torch.equal(value, before[name]), name
    assert not torch.equal(next(student.parameters()), weight)


def test_each_tensor_moves_by_a_share_of_its_own_size(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    seconds = count()
    monkeypatch.setattr("pcc.training.distill.perf_counter", lambda: float(next(seconds)))
    teacher = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 4, 1, bias=False))
    with torch.no_grad():
        teacher.get_parameter("0.weight").mul_(1e-2)
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        for weight in student.parameters():
            weight.mul_(0.8)
    before = [weight.detach().clone() for weight in student.parameters()]
    distill(student, teacher, torch.rand(32, 3, 8, 8), 40.0)
    for weight, was in zip(student.parameters(), before, strict=True):
        assert 1e-3 < float((weight.detach() - was).norm() / was.norm()) < 0.2


def test_a_tensors_size_is_that_of_its_weights_that_are_not_zero() -> None:
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
        layer.bias.zero_()
    sizes = [group["size"] for group in _optimizer(Train(layer, {}, epochs=1)).param_groups]
    assert sizes == pytest.approx([12.5**0.5, LEAST_SIZE])


def test_every_sample_counts_alike() -> None:
    torch.manual_seed(0)
    teacher, student = nn.Linear(3, 4), nn.Linear(3, 4)
    many, one = torch.randn(7, 3), torch.randn(1, 3)
    of_many, of_one = (float(_loss(student(x), teacher(x)).detach()) for x in (many, one))
    assert distances([student], teacher, [many, one]) == pytest.approx([(7 * of_many + of_one) / 8])


class TwoHeads(nn.Module):
    """A body with two outputs, as detectors have them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3, 2, 1)
        self.boxes = nn.Conv2d(8, 4, 1)
        self.scores = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.body(x).relu()
        return {"boxes": self.boxes(x), "scores": self.scores(x)}


def test_every_output_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    seconds = count()
    monkeypatch.setattr("pcc.training.distill.perf_counter", lambda: float(next(seconds)))
    teacher, x = TwoHeads(), torch.rand(32, 3, 16, 16)
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        for name in ("boxes", "scores"):
            student.get_parameter(f"{name}.weight").mul_(0.9)
    before = [(student(x)[name] - teacher(x)[name]).square().mean() for name in ("boxes", "scores")]
    (far,) = distances([student], teacher, [x])
    distill(student, teacher, x, 100.0)
    after = [(student(x)[name] - teacher(x)[name]).square().mean() for name in ("boxes", "scores")]
    (near,) = distances([student], teacher, [x])
    assert near < far
    assert all(now < then for now, then in zip(after, before, strict=True))
