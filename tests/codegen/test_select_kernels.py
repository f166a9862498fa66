"""select-kernels from outside: which family a convolution gets, what that makes of its weight, and what is said about it."""

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from pcc.codegen.select_kernels import SelectKernels
from pcc.errors import PccError
from pcc.frontend.torch_module import import_module
from pcc.ir.annotations import KernelChoice, annotation, skips
from pcc.ir.counts import count
from pcc.ir.ops import CONV2D, LINEAR, PACKED_CONV2D
from pcc.ir.verify import relative_error, run_graph, verify_structure
from tests.passes.prunable import run

BEFORE = "decompose,canonicalize,fold-constants,fold-batchnorm,{prune}drop-filters,fuse-epilogues,reorder-kernels"
PROCESSORS = ("avx2", "intel-avx512", "zen4", "cortex-a55", "cortex-a76")


def selected(conv: nn.Conv2d, processor: str, prune: str = "", size: int = 28) -> tuple[GraphModule, Node, KernelChoice]:
    """The graph of a convolution after the pass, which computes what it did, its node and the choice."""
    graph_module, x = graph_before(conv, prune, size)
    expected = run_graph(graph_module, (x,))
    assert SelectKernels(processor)(graph_module).graph_module is graph_module
    verify_structure(graph_module)
    assert relative_error(run_graph(graph_module, (x,)), expected) < 1e-6
    (node,) = (node for node in graph_module.graph.nodes if node.target in (CONV2D, PACKED_CONV2D))
    choice = annotation(node, KernelChoice)
    assert choice is not None
    return graph_module, node, choice


def graph_before(conv: nn.Conv2d, prune: str, size: int) -> tuple[GraphModule, Tensor]:
    x = torch.randn(1, conv.in_channels, size, size, generator=torch.Generator().manual_seed(1))
    return run(import_module(conv.eval(), (x,)), BEFORE.format(prune=prune)), x


def conv(*args: int, **options: int) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(*args, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_dense_layer_gets_the_dense_kernel(processor: str) -> None:
    _, node, choice = selected(conv(32, 32, 3, padding=1), processor)
    assert (choice.family, node.target) == ("conv-dense", CONV2D)
    assert any("no kernel is all zero" in skip.reason for skip in skips(node))


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_depthwise_layer_gets_the_depthwise_kernel(processor: str) -> None:
    _, node, choice = selected(conv(32, 32, 3, padding=1, groups=32), processor)
    assert (choice.family, node.target) == ("conv-depthwise-direct", CONV2D)
    assert {other.family for other in choice.rejected} >= {"conv-depthwise", "conv-dense", "conv-sparse-gather"}


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_very_sparse_layer_gets_a_sparse_kernel_and_a_packed_weight(processor: str) -> None:
    prune = "prune-pattern{spare_first=false},prune-connectivity{rate=4,spare_first=false},"
    layer = conv(64, 64, 3, padding=1)
    dense, _ = graph_before(layer, prune, 28)
    (before,) = dense.graph.find_nodes(op="call_function", target=CONV2D)
    _, node, choice = selected(layer, processor, prune)
    assert choice.family.startswith("conv-sparse")
    dense_cost = next(other.cost for other in choice.rejected if other.family == "conv-dense")
    assert dense_cost is not None
    assert dense_cost > 2 * choice.cost
    assert not any(skip.pass_name == "select-kernels" for skip in skips(node))
    assert node.target is PACKED_CONV2D
    assert count(node).weight_bytes < count(before).weight_bytes / 4
    assert (count(node).nonzeros, count(node).kept_macs) == (count(before).nonzeros, count(before).kept_macs)


@pytest.mark.parametrize("processor", [processor for processor in PROCESSORS if processor != "avx2"])
def test_a_sparse_kernel_that_would_lose_is_not_chosen(processor: str) -> None:
    """One weight in 1024 is missing: there is structure, and nothing to gain from it. On AVX2 the pointwise kernel has larger tiles and wins."""
    layer = conv(32, 32, 1)
    layer.weight.data[3, 5] = 0
    _, node, choice = selected(layer, processor)
    assert (choice.family, node.target) == ("conv-dense", CONV2D)
    assert any("a sparse kernel would take" in skip.reason for skip in skips(node))


def test_linear_layers_get_the_linear_kernel_and_nothing_else_gets_any() -> None:
    torch.manual_seed(0)
    graph_module = run(import_module(nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)), (torch.randn(2, 4),)), BEFORE.format(prune=""))
    SelectKernels("avx2")(graph_module)
    choices = {node.target: choice.family for node in graph_module.graph.nodes if (choice := annotation(node, KernelChoice))}
    assert choices == {LINEAR: "linear"}


def test_the_processor_must_be_known() -> None:
    graph_module, _ = graph_before(conv(4, 4, 3), "", 8)
    with pytest.raises(PccError, match=r"unknown processor profile 'z80': choose one of intel-avx512, .*cortex-a76"):
        SelectKernels("z80")(graph_module)


def test_a_pruned_network_is_chosen_layer_by_layer() -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.Conv2d(64, 64, 1)
    module = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU()))).eval()
    x = torch.randn(1, 3, 28, 28)
    graph_module = run(import_module(module, (x,)), BEFORE.format(prune="prune-pattern,prune-connectivity{rate=4,layers={6=1}},"))
    expected = run_graph(graph_module, (x,))
    assert SelectKernels("avx2")(graph_module).modified
    choices = [choice.family.split("-")[1] for node in graph_module.graph.nodes if (choice := annotation(node, KernelChoice))]
    assert choices == ["dense", "sparse", "depthwise", "dense"]
    assert relative_error(run_graph(graph_module, (x,)), expected) < 1e-6
