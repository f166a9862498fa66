"""Values with a dimension of 0: every pass of the graph leaves them as they are."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pcc.frontend.torch_module import import_module
from pcc.ir.printer import print_graph
from pcc.ir.verify import run_graph, verify_structure
from tests.passes.prunable import run

PIPELINE = "decompose,canonicalize,fold-constants,fold-batchnorm,{prune}drop-filters,fuse-epilogues,reorder-kernels"


class Net(nn.Module):
    """Two layers, read in a way that is given."""

    def __init__(self, read: Callable[["Net", Tensor], object]) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        self.second = nn.Conv2d(8, 4, 3)
        self.classify = nn.Linear(4 * 6 * 6, 5)
        self.nothing = nn.Sequential(nn.Linear(5, 0), nn.ReLU(), nn.Linear(0, 3))
        self.constant = nn.Parameter(torch.ones(1, 8, 0, 8))
        self.read = read

    def forward(self, x: Tensor) -> object:
        return self.read(self, x)


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize(
    "prune", ["", "prune-pattern{spare_first=false},prune-connectivity{rate=2,spare_first=false,share=4},"]
)
@pytest.mark.parametrize(
    "read",
    [
        lambda m, x: (m.first(x), m.first(x)[:, 8:]),
        lambda m, x: torch.relu(m.first(x)[:, 8:] + 1),
        lambda m, x: m.first(x)[:, 8:].reshape(1, 4, 0, 2),
        lambda m, x: m.first(x)[:, :, 8:].flatten(1),
        lambda m, x: m.first(x)[:, :, 8:] + m.constant,
        lambda m, x: m.first(x)[:, :, 8:] * torch.sigmoid(m.first(x).mean((2, 3), keepdim=True)),
        lambda m, x: torch.softmax(m.first(x)[:, 8:], 2),
        lambda m, x: m.second(torch.cat([m.first(x)[:, 8:], torch.relu(m.first(x))], 1)),
        lambda m, x: m.nothing(m.classify(torch.flatten(m.second(m.first(x)), 1))),
    ],
)
def test_every_pass_lives_with_them(read: Callable[[Net, Tensor], object], prune: str) -> None:
    torch.manual_seed(0)
    module, x = Net(read).eval(), torch.randn(1, 3, 10, 10)
    graph_module = run(import_module(module, (x,)), PIPELINE.format(prune=prune))
    verify_structure(graph_module)
    print_graph(graph_module)
    expected = module(x)
    for actual, value in zip(
        run_graph(graph_module, (x,)), expected if isinstance(expected, tuple) else [expected], strict=True
    ):
        assert actual.shape == value.shape
        if not prune:
            torch.testing.assert_close(actual, value, rtol=1e-4, atol=1e-5)
