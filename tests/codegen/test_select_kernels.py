"""select-kernels from outside: which family a convolution gets, what that makes of its weight, and what is said about
it."""

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from pcc.codegen.interpret import interpret
from pcc.codegen.isa import isa_named
from pcc.codegen.lower import lower
from pcc.codegen.select_kernels import SelectKernels
from pcc.errors import PccError
from pcc.frontend.torch_module import import_module
from pcc.ir.annotations import ComputedWith, KernelChoice, annotation, skips
from pcc.ir.counts import count
from pcc.ir.graph import arguments
from pcc.ir.ops import CONV2D, LINEAR, POOL2D, UNPACK
from pcc.ir.verify import relative_error, run_graph, verify_structure
from pcc.package.layer_report import layer_reports
from tests.passes.prunable import run

BEFORE = "decompose,canonicalize,fold-constants,fold-batchnorm,{prune}drop-filters,fuse-epilogues,reorder-kernels"
PROCESSORS = ("avx2", "intel-avx512", "zen4", "cortex-a55", "cortex-a76")


def selected(
    conv: nn.Conv2d, processor: str, prune: str = "", size: int = 28
) -> tuple[GraphModule, Node, KernelChoice]:
    """The graph of a convolution after the pass, which computes what it did, its node and the choice."""
    graph_module, x = graph_before(conv, prune, size)
    expected = run_graph(graph_module, (x,))
    assert SelectKernels(processor)(graph_module).graph_module is graph_module
    verify_structure(graph_module)
    assert relative_error(run_graph(graph_module, (x,)), expected) < 1e-6
    (node,) = graph_module.graph.find_nodes(op="call_function", target=CONV2D)
    choice = annotation(node, KernelChoice)
    assert choice is not None
    return graph_module, node, choice


def is_packed(layer: Node) -> bool:
    return arguments(layer)["weight"].target is UNPACK


def graph_before(conv: nn.Conv2d, prune: str, size: int) -> tuple[GraphModule, Tensor]:
    x = torch.randn(1, conv.in_channels, size, size, generator=torch.Generator().manual_seed(1))
    return run(import_module(conv.eval(), (x,)), BEFORE.format(prune=prune)), x


def conv(*args: int, **options: int) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(*args, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_dense_layer_gets_the_dense_kernel(processor: str) -> None:
    _, node, choice = selected(conv(32, 32, 3, padding=1), processor)
    assert choice.family.startswith("conv-dense")
    assert not is_packed(node)
    assert any("no connection is all zero" in skip.reason for skip in skips(node))


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_depthwise_layer_gets_the_depthwise_kernel(processor: str) -> None:
    _, node, choice = selected(conv(32, 32, 3, padding=1, groups=32), processor)
    assert (choice.family, is_packed(node)) == ("conv-depthwise-direct", False)
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
    assert is_packed(node)
    assert count(node).weight_bytes < count(before).weight_bytes / 4
    assert (count(node).nonzeros, count(node).kept_macs) == (count(before).nonzeros, count(before).kept_macs)


@pytest.mark.parametrize("processor", [processor for processor in PROCESSORS if processor != "avx2"])
def test_a_sparse_kernel_that_would_lose_is_not_chosen(processor: str) -> None:
    """One weight in 1024 is missing: there is structure, and nothing to gain from it. On AVX2 the pointwise kernel has
    larger tiles and wins."""
    layer = conv(32, 32, 1)
    layer.weight.data[3, 5] = 0
    _, node, choice = selected(layer, processor)
    assert choice.family.startswith("conv-dense")
    assert not is_packed(node)
    assert any("a sparse kernel would take" in skip.reason for skip in skips(node))


def test_linear_layers_get_the_linear_kernel_and_nothing_else_gets_any() -> None:
    torch.manual_seed(0)
    graph_module = run(
        import_module(nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)), (torch.randn(2, 4),)), BEFORE.format(prune="")
    )
    SelectKernels("avx2")(graph_module)
    choices = {
        node.target: choice.family for node in graph_module.graph.nodes if (choice := annotation(node, KernelChoice))
    }
    assert choices == {LINEAR: "linear"}


def selected_linear(processor: str, density: float, batch: int = 1) -> tuple[Node, KernelChoice]:
    """A linear layer with that share of its weights after the pass, which computes what it did, and the choice."""
    layer, generator = nn.Linear(1024, 1000), torch.Generator().manual_seed(0)
    layer.weight.data[torch.rand(layer.weight.shape, generator=generator) >= density] = 0
    x = torch.randn(batch, 1024, generator=generator)
    graph_module = run(import_module(layer.eval(), (x,)), BEFORE.format(prune=""))
    expected, (before,) = (
        run_graph(graph_module, (x,)),
        map(count, graph_module.graph.find_nodes(op="call_function", target=LINEAR)),
    )
    SelectKernels(processor)(graph_module)
    verify_structure(graph_module)
    assert relative_error(run_graph(graph_module, (x,)), expected) == 0
    (node,) = graph_module.graph.find_nodes(op="call_function", target=LINEAR)
    after, choice = count(node), annotation(node, KernelChoice)
    assert (after.parameters, after.nonzeros, after.macs, after.kept_macs) == (
        before.parameters,
        before.nonzeros,
        before.macs,
        before.kept_macs,
    )
    assert choice is not None
    return node, choice


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_sparse_linear_layer_gets_lists(processor: str, batch: int) -> None:
    node, choice = selected_linear(processor, 0.05, batch)
    assert (choice.family, is_packed(node)) == ("linear-sparse-gather", True)
    assert {other.family for other in choice.rejected} == {"linear", "linear-sparse-expand"}
    assert not skips(node)


def test_between_lists_and_dense_there_are_masks() -> None:
    node, choice = selected_linear("intel-avx512", 0.5)
    assert (choice.family, is_packed(node)) == ("linear-sparse-expand", True)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_linear_layer_that_is_hardly_sparse_stays_dense(processor: str) -> None:
    node, choice = selected_linear(processor, 0.95)
    assert (choice.family, is_packed(node)) == ("linear", False)
    assert any("a sparse kernel would take" in skip.reason for skip in skips(node))
    node, choice = selected_linear(processor, 1.0)
    assert (choice.family, is_packed(node)) == ("linear", False)
    assert any("no weight is zero" in skip.reason for skip in skips(node))


def test_the_processor_must_be_known() -> None:
    graph_module, _ = graph_before(conv(4, 4, 3), "", 8)
    with pytest.raises(PccError, match=r"unknown processor profile 'z80': choose one of intel-avx512, .*cortex-a76"):
        SelectKernels("z80")(graph_module)


def test_a_pruned_network_is_chosen_layer_by_layer() -> None:
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 64, 3, padding=1),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.Conv2d(64, 64, 3, padding=1, groups=64),
        nn.Conv2d(64, 64, 1),
    )
    module = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU()))).eval()
    x = torch.randn(1, 3, 28, 28)
    graph_module = run(
        import_module(module, (x,)), BEFORE.format(prune="prune-pattern,prune-connectivity{rate=4,layers={6=1}},")
    )
    expected = run_graph(graph_module, (x,))
    assert SelectKernels("avx2")(graph_module).modified
    choices = [
        choice.family.split("-")[1] for node in graph_module.graph.nodes if (choice := annotation(node, KernelChoice))
    ]
    assert choices == ["dense", "sparse", "depthwise", "dense"]
    assert relative_error(run_graph(graph_module, (x,)), expected) < 1e-6


class _Pooled(nn.Module):
    """A pruned convolution, an activation and a max pool; ``uses_both``: the convolution's value is returned, too."""

    def __init__(self, pool: nn.Module, uses_both: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.pool, self.uses_both = nn.Conv2d(64, 64, 3, padding=1), pool, uses_both

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        value = self.conv(x).relu()
        return (value, self.pool(value)) if self.uses_both else self.pool(value)


def pooled(module: nn.Module, size: int = 56) -> tuple[GraphModule, Tensor, KernelChoice, ComputedWith | None]:
    x = torch.randn(1, 64, size, size, generator=torch.Generator().manual_seed(1))
    graph_module = run(
        import_module(module.eval(), (x,)),
        BEFORE.format(prune="prune-pattern{spare_first=false},prune-connectivity{rate=4,spare_first=false},"),
    )
    SelectKernels("intel-avx512")(graph_module)
    (conv,), (pool,) = (
        list(graph_module.graph.find_nodes(op="call_function", target=target)) for target in (CONV2D, POOL2D)
    )
    choice = annotation(conv, KernelChoice)
    assert choice is not None
    return graph_module, x, choice, annotation(pool, ComputedWith)


def test_a_max_pool_is_computed_with_the_convolution_before_it() -> None:
    graph_module, x, choice, computed_with = pooled(_Pooled(nn.MaxPool2d(2)))
    assert choice.family == "conv-sparse-interleaved-pool"
    assert {other.family for other in choice.rejected if other.cost is not None} >= {
        "conv-sparse-interleaved",
        "conv-dense",
    }
    assert str(computed_with).startswith("computed-with(")
    program = lower(graph_module, "pooled", isa_named("avx512"))
    assert not any("pool" in call.kernel.name for call in program.calls)
    assert {layer.operator for layer in layer_reports(program, graph_module)} == {"pcc.conv2d"}
    (output,) = interpret(program, [x.numpy()])
    assert relative_error([torch.from_numpy(output)], run_graph(graph_module, (x,))) < 1e-5


@pytest.mark.parametrize(
    ("module", "size"),
    [
        (_Pooled(nn.MaxPool2d(2), uses_both=True), 56),
        (_Pooled(nn.MaxPool2d(3, 2, 1)), 56),
        (_Pooled(nn.MaxPool2d(2)), 55),
        (_Pooled(nn.MaxPool2d(2, dilation=2)), 56),
        (_Pooled(nn.AvgPool2d(2)), 56),
    ],
    ids=("used twice", "overlapping", "odd size", "dilated", "average"),
)
def test_other_pools_stay_layers(module: nn.Module, size: int) -> None:
    _, _, choice, computed_with = pooled(module, size)
    assert not choice.family.endswith("-pool")
    assert computed_with is None
