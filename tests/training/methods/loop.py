"""A task that a tiny network learns in a second: which quarter of an 8x8 image is bright."""

from pathlib import Path

import torch
from torch import nn

from pcc.training.data import ArrayData, Arrays
from pcc.training.processes import Processes
from pcc.training.recipe import parse_recipe
from pcc.training.trainer import Outcome, train


class Net(nn.Module):
    """Two 3x3 convolutions, the second with a batch norm, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 12, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(12)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(12 * 4, 16)
        self.fc2 = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.conv1(x).relu())
        x = self.pool(self.bn2(self.conv2(x)).relu())
        return self.fc2(self.fc1(x.flatten(1)).relu())


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def data(train: int = 240, test: int = 80) -> ArrayData:
    halves = []
    generator = torch.Generator().manual_seed(1)
    for count in (train, test):
        labels = torch.arange(count) % 4
        images = torch.randint(0, 140, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
        for image, label in zip(images, labels.tolist(), strict=True):
            down, right = 4 * (label // 2), 4 * (label % 2)
            image[:, down : down + 4, right : right + 4] += 60
        halves += [images, labels]
    return ArrayData("toy", 4, Arrays(*halves), (0.35,), (0.2,))


def shaped(*input_shape: int) -> ArrayData:
    """Data that has inputs of a shape, (C, H, W), and nothing in them."""
    nothing = torch.zeros(4, *input_shape, dtype=torch.uint8), torch.arange(4)
    return ArrayData("nothing", 4, Arrays(*nothing, *nothing), (0.5,) * input_shape[0], (0.5,) * input_shape[0])


def run(model: nn.Module, recipe: str, folder: Path, *, resume: bool = False) -> Outcome:
    """Trains with the shipped loop on one processor."""
    folder.mkdir(exist_ok=True)
    return train(model, data(), parse_recipe(recipe), folder, Processes(0, 1, torch.device("cpu")), resume=resume)


class Interrupted(Exception):
    """Raised by tests in the place of a pulled plug."""


def run_interrupted(model: nn.Module, again: nn.Module, recipe: str, folder: Path, epoch: int) -> Outcome:
    """Trains ``model`` until the loop is killed in epoch ``epoch`` (from 0, over all stages), then goes on with
    ``again``, a fresh model."""
    folder.mkdir(exist_ok=True)
    seen: list[str] = []

    def watch(text: str, part: float) -> None:
        what = text.split(", loss")[0]
        if not seen or seen[-1] != what:
            seen.append(what)
        if len(seen) > epoch:
            raise Interrupted

    try:
        train(model, data(), parse_recipe(recipe), folder, Processes(0, 1, torch.device("cpu")), watch=watch)
    except Interrupted:
        return run(again, recipe, folder, resume=True)
    raise AssertionError(f"the recipe has no epoch {epoch}")


def same(first: nn.Module, second: nn.Module) -> bool:
    """Whether two models have the same state, bit for bit."""
    states = first.state_dict(), second.state_dict()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())
