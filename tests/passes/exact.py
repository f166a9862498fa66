"""What the tests of exact passes share: a module as a canonical graph, and the check that a pass left its results
alone."""

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult

from pcc.frontend.torch_module import import_module
from pcc.ir.annotations import skips
from pcc.ir.graph import constant
from pcc.passes.canonicalize import Canonicalize
from pcc.passes.decompose import Decompose
from pcc.passes.manager import GraphPass

T = TypeVar("T", bound=nn.Module)


def canonical(module: nn.Module, *inputs: Tensor) -> GraphModule:
    """The module's graph as the passes here get it."""
    graph_module = import_module(module.eval(), inputs)
    for step in (Decompose(), Canonicalize()):
        graph_module = step(graph_module).graph_module
    return graph_module


def apply_exactly(
    graph_module: GraphModule, *passes: GraphPass, rtol: float = 1e-5, input_seed: int = 3
) -> GraphModule:
    """Runs passes; after each the graph must give what it gave before, on random input, within ``rtol`` of the largest
    output."""
    generator = torch.Generator().manual_seed(input_seed)
    inputs = [
        torch.randn(node.meta["val"].shape, generator=generator)
        for node in graph_module.graph.find_nodes(op="placeholder")
    ]
    for step in passes:
        before = _run(graph_module, inputs)
        result = step(graph_module)
        assert isinstance(result, PassResult)
        graph_module = result.graph_module
        graph_module.graph.lint()
        for expected, actual in zip(before, _run(graph_module, inputs), strict=True):
            torch.testing.assert_close(actual, expected, rtol=0, atol=rtol * max(1.0, float(expected.abs().max())))
        check_values(graph_module)
        again = step(graph_module)
        assert not again.modified, f"{step.name} changes its own result"
    return graph_module


def check_values(graph_module: GraphModule) -> None:
    """Every node's recorded shape is the one it computes, and every attribute has a reader."""
    for node in graph_module.graph.nodes:
        if node.op == "get_attr":
            assert node.meta["val"].shape == constant(node).shape, node
    read = {node.target for node in graph_module.graph.find_nodes(op="get_attr")}
    assert {name for name, _ in (*graph_module.named_parameters(), *graph_module.named_buffers())} == read


def operators(graph_module: GraphModule) -> Counter[str]:
    """How many calls of each operator there are, by short names: ``conv2d``, ``elementwise``."""
    return Counter(str(node.target).split(".")[1] for node in graph_module.graph.nodes if node.op == "call_function")


def nodes(graph_module: GraphModule, operator: str) -> list[Node]:
    return [
        node
        for node in graph_module.graph.nodes
        if node.op == "call_function" and str(node.target).split(".")[1] == operator
    ]


def reasons(node: Node) -> str:
    """Why passes left the node alone."""
    return "; ".join(map(str, skips(node)))


def randomise(module: T, seed: int = 0) -> T:
    """Random parameters and statistics, so that nothing is one or zero by accident."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if value.is_floating_point():
            positive = name.endswith("running_var")
            value.data = (
                torch.rand(value.shape, generator=generator) + 0.5
                if positive
                else torch.randn(value.shape, generator=generator) * 0.5
            )
    return module.eval()


def _run(graph_module: GraphModule, inputs: Sequence[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        result = graph_module(*inputs)
    return list(result) if isinstance(result, tuple | list) else [result]
