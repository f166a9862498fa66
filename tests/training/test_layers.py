"""Selectors: which layers take which structure."""

import pytest
import torch
from torch import nn

from pcc.errors import PccError
from pcc.sparsity.kernels import Kernels
from pcc.sparsity.unstructured import Unstructured
from pcc.training.layers import Structures, bind, prunable


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"conv1": nn.Conv2d(8, 8, 3), "conv2": nn.Conv2d(8, 8, 1)}) for _ in range(2)
        )
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.grouped = nn.Conv2d(8, 8, 5, groups=2)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 4)


HALF, QUARTER = Unstructured(2), Unstructured(4)


def chosen(structures: Structures) -> dict[str, float]:
    return {
        layer.name: layer.structure.rate
        for layer in bind(Net(), structures)
        if isinstance(layer.structure, Unstructured)
    }


def test_depthwise_convolutions_are_left_out() -> None:
    names = ["stem", "blocks.0.conv1", "blocks.0.conv2", "blocks.1.conv1", "blocks.1.conv2", "grouped", "fc"]
    assert list(prunable(Net())) == names


@pytest.mark.parametrize(
    ("structures", "expected"),
    [
        ({"fc": HALF}, {"fc": 2}),
        ({"blocks.*.conv1": HALF}, {"blocks.0.conv1": 2, "blocks.1.conv1": 2}),
        ({"@first": HALF, "@linear": QUARTER}, {"stem": 2, "fc": 4}),
        ({"@first": None, "@conv3x3": HALF}, {"blocks.0.conv1": 2, "blocks.1.conv1": 2}),
        ({"@conv5x5": HALF, "@conv1x1": QUARTER}, {"blocks.0.conv2": 4, "blocks.1.conv2": 4, "grouped": 2}),
        ({"blocks.0.*": None, "@conv": HALF}, {"stem": 2, "blocks.1.conv1": 2, "blocks.1.conv2": 2, "grouped": 2}),
        ({"@all": HALF, "fc": QUARTER}, dict.fromkeys(prunable(Net()), 2)),
        ({}, {}),
    ],
)
def test_the_first_selector_that_fits_decides(structures: Structures, expected: dict[str, float]) -> None:
    found = chosen(structures)
    assert found == expected
    assert list(found) == [name for name in prunable(Net()) if name in expected]


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("stam", "no convolution or linear layer is called 'stam': did you mean stem?"),
        ("zzz", "it has stem, blocks.0.conv1"),
        ("depthwise", "'depthwise' is no layer that can be pruned: depthwise is a depthwise convolution"),
        ("norm", "norm is a BatchNorm2d"),
        ("@conv7x7", "the model has no @conv7x7 layer"),
        ("@dense", "'@dense' is no kind of layer: choose @first"),
    ],
)
def test_selectors_that_fit_nothing(selector: str, message: str) -> None:
    with pytest.raises(PccError) as error:
        bind(Net(), {selector: HALF})
    assert message in str(error.value)


def test_a_projection_that_fails_names_the_layer() -> None:
    (layer,) = bind(Net(), {"blocks.0.conv2": Kernels("designed", 2.0)})
    with pytest.raises(PccError, match=r"^layer blocks\.0\.conv2: "):
        layer.project(layer.weight)


def test_projection_and_count() -> None:
    torch.manual_seed(0)
    (layer,) = bind(Net(), {"grouped": QUARTER})
    before = layer.weight.detach().clone()
    projected = layer.project(layer.weight)
    assert torch.equal(layer.weight, before)
    assert projected.shape == before.shape
    assert int(projected.count_nonzero()) == before.numel() // 4
    with torch.no_grad():
        layer.weight.copy_(projected)
    assert layer.groups == 2
    assert layer.count().rate == 4
