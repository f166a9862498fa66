"""Hints compare what goes into layers, where the student reads it."""

import copy

import pytest
import torch
from torch import nn

from pcc.training.hints import Hints, error


def test_hints_are_the_errors_of_what_layers_read() -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1, bias=False), nn.Flatten(), nn.Linear(20, 2)
    )
    student, x = copy.deepcopy(teacher), torch.randn(6, 3, 4, 4)
    with torch.no_grad():
        student.get_parameter("0.weight")[1:3] *= 0.5
        student.get_parameter("2.weight")[:, 1] = 0  # so nobody asks what filter 1 gives
    with Hints(student, teacher) as hints:
        for model in (teacher, student):
            model(x)
        loss = hints.loss()
    hidden = [model[:2](x)[:, [0, 2, 3]] for model in (student, teacher)]
    flat = [model[:4](x) for model in (student, teacher)]
    torch.testing.assert_close(loss, error(*hidden) + error(*flat))
    loss.backward()
    assert student.get_parameter("0.weight").grad is not None
    assert teacher.get_parameter("0.weight").grad is None
    with Hints(student, teacher) as hints:
        pass
    student(x)
    assert float(hints.loss().detach()) == 0  # it looks no more


def test_an_error_is_relative() -> None:
    wanted = torch.tensor([[1.0, 3.0], [2.0, 4.0]])
    assert float(error(wanted * 1.5, wanted)) == pytest.approx(0.25)
    assert float(error(torch.zeros(2), torch.zeros(2))) == 0


def test_grouped_layers_read_all_channels() -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, groups=2))
    student, x = copy.deepcopy(teacher), torch.randn(2, 3, 2, 2)
    with torch.no_grad():
        student.get_parameter("0.weight").mul_(0.5)
        student.get_parameter("1.weight")[:, 0] = 0
    with Hints(student, teacher) as hints:
        for model in (teacher, student):
            model(x)
        torch.testing.assert_close(hints.loss(), error(student[0](x), teacher[0](x)))


def test_hints_see_inputs_that_share_memory() -> None:
    """Where every sample is the same piece of memory, its gradient is still the sum over samples."""

    class Token(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.layer = nn.Parameter(torch.ones(1, 3)), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.token.expand(len(x), -1))

    student, teacher = Token(), Token()
    with torch.no_grad():
        student.token.fill_(2)
    with Hints(student, teacher) as hints:
        teacher(torch.zeros(4, 1))
        student(torch.zeros(4, 1))
        hints.loss().backward()
    torch.testing.assert_close(student.token.grad, torch.full((1, 3), 2 / 3))


def test_where_nothing_is_wanted_what_is_found_counts_by_its_size() -> None:
    found = torch.rand(4, 8, requires_grad=True)
    loss = error(found, torch.zeros(4, 8))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1000)
    assert found.grad is not None
    assert bool(found.grad.isfinite().all())
