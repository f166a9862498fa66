"""Decompose: the same numbers from simpler operators; what pcc knows whole stays whole."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcc.frontend.torch_module import import_module
from pcc.ir.printer import print_graph
from pcc.ir.verify import relative_error, run_graph, verify_structure
from pcc.passes.decompose import Decompose
from tests.passes.find import operators


class Composites(nn.Module):
    """An operator of each kind that comes apart, and some that stay."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = F.selu(F.relu6(self.conv(x)))
        first, second = y.chunk(2, 1)
        mixed = torch.addcmul(first, first, second, value=0.5)
        filled = torch.cat([mixed, torch.zeros_like(mixed[:, :2]), mixed.new_full((1, 2, 4, 6), 0.5)], 1)
        return self.shuffle(F.glu(torch.lerp(filled, filled.square(), 0.25), 1)), F.gelu(y.movedim(1, -1)).softmax(-1)


def test_golden(golden) -> None:
    net, x = Composites(), torch.zeros(1, 3, 4, 6)
    graph_module = import_module(net, (x,))
    Decompose()(graph_module)
    verify_structure(graph_module)
    golden(print_graph(graph_module), "decompose")


class Net(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "gone"),
    [
        (lambda x: F.pixel_shuffle(x, 2), "pixel_shuffle"),
        (lambda x: F.pixel_unshuffle(x, 2), "pixel_unshuffle"),
        (lambda x: F.channel_shuffle(x, 2), "channel_shuffle"),
        (lambda x: torch.addcmul(x, x, x, value=0.5), "addcmul"),
        (lambda x: torch.lerp(x, x * 2, 0.25), "lerp"),
        (lambda x: F.glu(x, 1), "glu"),
        (lambda x: F.relu6(x), "relu6"),
        (lambda x: F.selu(x), "selu"),
        (lambda x: x.square(), "square"),
        (
            lambda x: (
                torch.cat([part * 2 for part in torch.tensor_split(x, 3, dim=1)])
                if x.shape[1] % 3 == 0
                else torch.cat(list(x.chunk(3, 1)), 1)
            ),
            "chunk",
        ),
        (lambda x: x.movedim(1, -1), "movedim"),
        (lambda x: x + torch.zeros_like(x), "zeros_like"),
        (lambda x: torch.cat([x, torch.ones_like(x[:, :2])], 1), "_like"),
        (lambda x: x * torch.full_like(x, 0.5), "full_like"),
        (
            lambda x: torch.cat([x, x.new_zeros(2, 1, 4, 6), x.new_ones(x.shape), x.new_full((2, 1, 4, 6), 2.5)], 1),
            "new_",
        ),
        (lambda x: x.tile(1, 2, 1, 1), "tile"),
    ],
)
def test_composites_come_apart(function, gone: str) -> None:
    net, x = Net(function), torch.randn(2, 8, 4, 6)
    graph_module = import_module(net, (x,))
    Decompose()(graph_module)
    verify_structure(graph_module)
    assert not [operator for operator in operators(graph_module) if gone in operator]
    assert relative_error(run_graph(graph_module, (x,)), (net(x),)) < 1e-6
    assert not Decompose()(graph_module).modified


def test_what_is_known_whole_stays_whole() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.Hardswish(),
        nn.AvgPool2d(2),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(36, 5),
        nn.Softmax(1),
    )
    graph_module = import_module(net.eval(), (torch.randn(1, 3, 8, 8),))
    before = operators(graph_module)
    assert not Decompose()(graph_module).modified
    assert operators(graph_module) == before


def test_parts_know_where_they_came_from() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.PixelShuffle(2))
    graph_module = import_module(net, (torch.randn(1, 3, 4, 4),))
    Decompose()(graph_module)
    parts = [node for node in graph_module.graph.nodes if node.op == "call_function"][1:]
    assert len(parts) >= 3
    assert all(list(node.meta["nn_module_stack"].values())[-1][0] == "1" for node in parts)
