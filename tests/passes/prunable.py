"""Small networks that have every kind of convolution pruning meets, as graphs ready for it."""

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from pcc.frontend.torch_module import import_module
from pcc.ir.graph import constant, layer_name
from pcc.ir.ops import CONV2D
from pcc.ir.verify import run_graph
from pcc.passes.manager import PassManager
from pcc.passes.pipeline import parse_pipeline

FRONT = "decompose,canonicalize,fold-constants,fold-batchnorm,fuse-epilogues"


class Mixed(nn.Module):
    """A stem, a residual block, a grouped, a strided and dilated, a depthwise and a 5x5 convolution, and a classifier
    behind a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.left = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.right = nn.Conv2d(16, 16, 3, padding=1)
        self.grouped = nn.Conv2d(16, 24, 3, padding=1, groups=2)
        self.expand = nn.Conv2d(24, 32, 1)
        self.depthwise = nn.Conv2d(32, 64, 3, padding=1, groups=32)
        self.wide = nn.Conv2d(64, 20, 5, stride=(1, 2), padding=(2, 0))
        self.dilated = nn.Conv2d(20, 12, 3, stride=2, padding=(2, 3), dilation=2)
        self.classifier = nn.Linear(12 * 2 * 2, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.norm(self.right(torch.relu(self.left(x)))))
        x = nn.functional.silu(self.expand(torch.relu(self.grouped(x))))
        x = nn.functional.hardtanh(self.depthwise(x), 0.0, 6.0)
        x = nn.functional.max_pool2d(torch.relu(self.wide(x)), 2)
        x = nn.functional.adaptive_avg_pool2d(torch.relu(self.dilated(x)), 2)
        return self.classifier(torch.flatten(x, 1))


def graph_of(module: nn.Module, *shape: int, pipeline: str = FRONT) -> tuple[GraphModule, Tensor]:
    """A module of random weights as a graph that the front of the pipeline has run over, and an input."""
    generator = torch.Generator().manual_seed(0)
    for value in module.state_dict().values():
        if value.dtype == torch.float32:
            value.copy_(
                torch.rand(value.shape, generator=generator) + 0.5
                if value.dim() == 1
                else torch.randn(value.shape, generator=generator) * 0.2
            )
    x = torch.randn(shape, generator=generator)
    return run(import_module(module.eval(), (x,)), pipeline), x


def mixed() -> tuple[GraphModule, Tensor]:
    return graph_of(Mixed(), 2, 3, 18, 22)


def run(graph_module: GraphModule, pipeline: str) -> GraphModule:
    return PassManager(parse_pipeline(pipeline))(graph_module).graph_module


def convs(graph_module: GraphModule) -> dict[str, Node]:
    """The convolutions by the path of their module."""
    return {layer_name(node): node for node in graph_module.graph.find_nodes(op="call_function", target=CONV2D)}


def weights(graph_module: GraphModule) -> dict[str, Tensor]:
    """The weights of the convolutions by the path of their module."""
    return {name: constant(node.args[1]) for name, node in convs(graph_module).items()}  # type: ignore[arg-type]


def output(graph_module: GraphModule, x: Tensor) -> Tensor:
    with torch.no_grad():
        return run_graph(graph_module, (x,))[0]
