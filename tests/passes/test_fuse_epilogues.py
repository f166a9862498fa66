"""fuse-epilogues: biases, residuals and activations into layers, elementwise chains into one node, and the reasons
where not."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule

from pcc import models
from pcc.ir.expression import parse
from pcc.ir.graph import arguments
from pcc.ir.printer import print_graph
from pcc.passes.fold_batchnorm import FoldBatchnorm
from pcc.passes.fold_constants import FoldConstants
from pcc.passes.fuse_epilogues import MOST_CALLS, MOST_OPERANDS, FuseEpilogues
from pcc.passes.idioms import recognise
from tests.passes.exact import apply_exactly, canonical, nodes, operators, randomise, reasons

X = torch.zeros(2, 4, 7, 6)


class Net(nn.Module):
    """Layers to play with; ``formula`` is the forward pass."""

    def __init__(self, formula: Callable[["Net", Tensor], Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.a, self.b, self.wide, self.narrow = (
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Conv2d(4, 4, 1, bias=False),
            nn.Conv2d(4, 8, 1),
            nn.Conv2d(4, 4, 1),
        )
        self.channel, self.pixel = nn.Parameter(torch.empty(1, 4, 1, 1)), nn.Parameter(torch.empty(1, 4, 7, 6))
        self.formula = formula

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.formula(self, x)


def fuse(formula: Callable[[Net, Tensor], Tensor | tuple[Tensor, ...]], x: Tensor = X) -> GraphModule:
    return apply_exactly(canonical(randomise(Net(formula)), x), FoldConstants(), FuseEpilogues())


def epilogues(graph_module: GraphModule) -> list[str]:
    """Each layer's epilogue: ``b: bias + a -> relu``."""
    found = []
    for node in graph_module.graph.nodes:
        if node.op == "call_function" and "residual" in (bound := arguments(node)):
            terms = [
                *(["bias"] if bound["bias"] is not None else []),
                *([bound["residual"].name] if bound["residual"] is not None else []),
            ]
            found.append(f"{node.name}: {' + '.join(terms)} -> {bound['activation']}")
    return found


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (nn.ReLU(), "relu"),
        (nn.ReLU6(), "clip(0,6)"),
        (nn.LeakyReLU(0.1), "leaky_relu(0.1)"),
        (nn.Hardswish(), "hardswish"),
        (nn.Hardsigmoid(), "hardsigmoid"),
        (nn.SiLU(), "silu"),
        (nn.Sigmoid(), "sigmoid"),
        (nn.Tanh(), "tanh"),
        (nn.GELU(), "gelu"),
        (nn.Hardtanh(-2, 3), "clip(-2,3)"),
    ],
)
def test_activations(module: nn.Module, text: str) -> None:
    graph_module = fuse(lambda net, x: module(net.a(x)))
    assert epilogues(graph_module) == [f"a: bias -> {text}"]
    assert not nodes(graph_module, "elementwise")


FUSED: dict[str, tuple[Callable[[Net, Tensor], Tensor], list[str]]] = {
    "input as residual": (lambda net, x: (net.a(x) + x).relu(), ["a: bias + x -> relu"]),
    "residual first": (lambda net, x: F.relu6(x + net.b(x)), ["b: x -> clip(0,6)"]),
    "the later of two": (lambda net, x: (net.b(x) + net.a(x)).relu(), ["b:  -> none", "a: bias + b -> relu"]),
    "the later of two, named first": (
        lambda net, x: (lambda first: net.a(x) + first)(net.b(x)).relu(),
        ["b:  -> none", "a: bias + b -> relu"],
    ),
    "residual computed later": (lambda net, x: net.a(x) + F.max_pool2d(x, 3, 1, 1), ["a: bias + max_pool2d -> none"]),
    "residual of an activated layer": (lambda net, x: net.b(net.a(x).relu()) + x, ["a: bias -> relu", "b: x -> none"]),
    "bias by channel": (lambda net, x: (net.b(x) + net.channel).relu(), ["b: bias -> relu"]),
    "bias on top of a bias": (lambda net, x: net.channel + net.a(x), ["a: bias -> none"]),
    "bias subtracted": (lambda net, x: net.a(x) - net.channel - 0.5, ["a: bias -> none"]),
    "bias after the residual": (lambda net, x: (net.b(x) + x + 0.25).relu(), ["b: bias + x -> relu"]),
    "prelu": (lambda net, x: F.prelu(net.a(x), net.channel.flatten()), ["a: bias -> prelu"]),
    "prelu of one slope": (lambda net, x: F.prelu(net.b(x), net.channel.flatten()[:1]), ["b:  -> prelu"]),
    "prelu after the residual": (
        lambda net, x: F.prelu(net.a(x) + x, net.channel.flatten()),
        ["a: bias + x -> prelu"],
    ),
    "hand-written prelu": (
        lambda net, x: (lambda y: y.relu() - net.channel * F.relu(-y))(net.b(x)),
        ["b:  -> prelu"],
    ),
    "prelu by choice": (lambda net, x: (lambda y: torch.where(y > 0, y, y * net.channel))(net.b(x)), ["b:  -> prelu"]),
    "least value by channel": (lambda net, x: torch.maximum(net.channel, net.a(x)), ["a: bias -> max"]),
    "largest value by channel": (lambda net, x: torch.minimum(net.a(x) + x, net.channel), ["a: bias + x -> min"]),
    "swish": (lambda net, x: (lambda y: y * torch.sigmoid(net.channel * y))(net.a(x)), ["a: bias -> swish"]),
    "quick gelu": (lambda net, x: (lambda y: y * torch.sigmoid(1.702 * y))(net.a(x)), ["a: bias -> swish"]),
    "hand-written silu": (lambda net, x: (lambda y: y * torch.sigmoid(y))(net.a(x)), ["a: bias -> silu"]),
    "hand-written hardswish": (lambda net, x: (lambda y: y * F.relu6(y + 3) / 6)(net.a(x)), ["a: bias -> hardswish"]),
}


@pytest.mark.parametrize("case", FUSED)
def test_into_layers(case: str) -> None:
    formula, expected = FUSED[case]
    graph_module = fuse(formula)
    assert epilogues(graph_module) == expected
    assert not nodes(graph_module, "elementwise")


def test_two_layers_into_one_product() -> None:
    graph_module = fuse(lambda net, x: net.a(x).relu() * torch.sigmoid(net.b(x)))
    assert epilogues(graph_module) == ["a: bias -> relu", "b:  -> sigmoid"]
    (product,) = nodes(graph_module, "elementwise")
    assert product.args[1] == "mul(x0,x1)"
    assert (
        reasons(product)
        == "fuse-epilogues: b: mul comes after its activation sigmoid; a: mul comes after its activation relu"
    )


NOT_FUSED: dict[str, tuple[Callable[[Net, Tensor], Tensor | tuple[Tensor, ...]], str]] = {
    "two users": (lambda net, x: (lambda y: (y.relu(), y * 2))(net.a(x)), "a: it has 2 users"),
    "result of the model": (lambda net, x: (lambda y: (y.relu(), y))(net.a(x)), "a: it has 2 users"),
    "broadcast residual": (
        lambda net, x: net.a(x) + net.narrow(x.mean((2, 3), keepdim=True)),
        "a: narrow (2, 4, 1, 1) is broadcast when it is added to (2, 4, 7, 6)",
    ),
    "after the activation": (lambda net, x: net.a(x).relu() + x, "a: add comes after its activation relu"),
    "second residual": (lambda net, x: net.a(x) + x + F.max_pool2d(x, 3, 1, 1), "a: it has a residual already"),
    "product": (lambda net, x: net.a(x) * net.channel, "a: mul is neither an addition nor an activation"),
    "subtracted from": (lambda net, x: x - net.a(x), "a: sub is neither an addition nor an activation"),
    "residual subtracted": (lambda net, x: net.a(x) - x, "a: sub of what is not a constant of each channel"),
    "slopes by pixel": (
        lambda net, x: (lambda y: torch.where(y > 0, y, y * net.pixel))(net.b(x)),
        "b: prelu is neither an addition nor an activation of it",
    ),
    "as a slope": (
        lambda net, x: torch.where(x > 0, x, x * net.a(x)),
        "a: prelu is neither an addition nor an activation of it",
    ),
    "square": (lambda net, x: (lambda y: y * y)(net.a(x)), "a: the expression uses it more than once"),
}


@pytest.mark.parametrize("case", NOT_FUSED)
def test_reasons(case: str) -> None:
    formula, expected = NOT_FUSED[case]
    graph_module = fuse(formula)
    assert any(expected in reasons(node) for node in nodes(graph_module, "elementwise")), [
        reasons(node) for node in nodes(graph_module, "elementwise")
    ]


def test_linear_layers() -> None:
    class Perceptron(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 5, bias=False), nn.Linear(5, 5)
            self.term = nn.Parameter(torch.empty(5))

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.b((self.a(x) + self.term).relu()) + x)

    graph_module = apply_exactly(
        canonical(randomise(Perceptron()), torch.zeros(3, 5)), FoldConstants(), FuseEpilogues()
    )
    assert epilogues(graph_module) == ["a: bias -> relu", "b: bias + x -> tanh"]
    assert not nodes(graph_module, "elementwise")


def test_a_bias_shared_by_layers_changes_in_one_only() -> None:
    class SharedBias(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.conv(x) + 1, self.conv(x.relu())

    graph_module = apply_exactly(canonical(randomise(SharedBias()), X), FoldConstants(), FuseEpilogues())
    first, second = nodes(graph_module, "conv2d")
    assert first.args[1] is second.args[1]
    assert first.args[2] is not second.args[2]


# ---- chains ----


def test_chains_become_one_expression() -> None:
    graph_module = fuse(lambda net, x: torch.exp(-(x * net.channel + 1).abs()) * x)
    (chain,) = nodes(graph_module, "elementwise")
    assert chain.args[1] == "mul(exp(neg(abs(add(mul(x0,x1),1)))),x0)"
    assert [operand.name for operand in chain.args[0]] == ["x", "channel"]  # type: ignore[union-attr]


def test_squeeze_and_excitation_keeps_its_gate_small() -> None:
    """The gate is (N, C, 1, 1): its sigmoid must not be computed for every pixel."""
    graph_module = fuse(lambda net, x: (x * torch.sigmoid(net.narrow(x.mean((2, 3), keepdim=True)) * 2)).relu())
    gate, product = nodes(graph_module, "elementwise")
    assert (gate.args[1], product.args[1]) == ("sigmoid(mul(x0,2))", "relu(mul(x0,x1))")
    assert gate.meta["val"].shape == (2, 4, 1, 1)


def test_values_with_two_users_are_computed_once() -> None:
    graph_module = fuse(lambda net, x: (lambda y: (y + 1, y * 2))(torch.exp(x) - 3))
    assert len(nodes(graph_module, "elementwise")) == 3


def test_chains_have_limits() -> None:
    def many_operands(net: Net, x: Tensor) -> Tensor:
        total = x
        for size in range(1, 2 * MOST_OPERANDS, 2):
            total = total + F.avg_pool2d(x, size, 1, size // 2).exp() * F.max_pool2d(x, 3, 1, 1)
        return total

    def many_calls(net: Net, x: Tensor) -> Tensor:
        for _ in range(2 * MOST_CALLS):
            x = torch.exp(x).abs().neg()
        return x

    for formula, limit in ((many_operands, f"{MOST_OPERANDS} operands"), (many_calls, f"{MOST_CALLS} operations")):
        graph_module = fuse(formula)
        chains = nodes(graph_module, "elementwise")
        assert len(chains) > 1
        assert any(f"the chain would have more than {limit}" in reasons(chain) for chain in chains)
        assert all(len(chain.args[0]) <= MOST_OPERANDS for chain in chains)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spelt_out", "name"),
    [
        ("mul(x0,sigmoid(x0))", "silu(x0)"),
        ("mul(sigmoid(neg(x1)),neg(x1))", "silu(neg(x1))"),
        ("mul(x0,sigmoid(x1))", "mul(x0,sigmoid(x1))"),
        ("div(clip(add(x0,3),0,6),6)", "hardsigmoid(x0)"),
        ("mul(clip(add(3,x0),0,6),0.16666666666666666)", "hardsigmoid(x0)"),
        ("mul(x0,div(clip(add(x0,3),0,6),6))", "hardswish(x0)"),
        ("div(mul(clip(add(x0,3),0,6),x0),6)", "hardswish(x0)"),
        ("div(mul(clip(add(x0,3),0,6),x1),6)", "div(mul(clip(add(x0,3),0,6),x1),6)"),
        ("div(clip(add(x0,2),0,6),6)", "div(clip(add(x0,2),0,6),6)"),
        ("add(relu(x0),mul(x1,min(x0,0)))", "prelu(x0,x1)"),
        ("add(mul(min(x0,0),x1),relu(x0))", "prelu(x0,x1)"),
        ("sub(relu(x0),mul(x1,relu(neg(x0))))", "prelu(x0,x1)"),
        ("sub(mul(x1,relu(neg(x0))),relu(x0))", "sub(mul(x1,relu(neg(x0))),relu(x0))"),
        ("where(gt(x0,0),x0,mul(x1,x0))", "prelu(x0,x1)"),
        ("where(lt(x0,0),mul(x0,x1),x0)", "prelu(x0,x1)"),
        ("where(lt(x0,0),x0,mul(x0,x1))", "where(lt(x0,0),x0,mul(x0,x1))"),
        ("where(gt(x0,1),x0,mul(x1,x0))", "where(gt(x0,1),x0,mul(x1,x0))"),
        ("mul(x0,sigmoid(mul(x1,x0)))", "swish(x0,x1)"),
        ("mul(x1,sigmoid(mul(x0,x0)))", "mul(x1,sigmoid(mul(x0,x0)))"),
    ],
)
def test_idioms(spelt_out: str, name: str) -> None:
    assert str(recognise(parse(spelt_out))) == name


# ---- networks ----


class Residual(nn.Module):
    """A bottleneck block with a projected shortcut, as in ResNet, and a gate, as in EfficientNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.shortcut, self.bn3 = nn.Conv2d(4, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.squeeze = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)) + self.bn3(self.shortcut(x)))
        return y * torch.sigmoid(self.squeeze(y.mean((2, 3), keepdim=True)))


class Slopes(nn.Module):
    """An inverted bottleneck with PReLU, also after the shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.slopes = nn.Conv2d(4, 8, 1), nn.PReLU(8)
        self.depthwise, self.slope = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.PReLU()
        self.down, self.last = nn.Conv2d(8, 4, 1), nn.PReLU(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x + self.down(self.slope(self.depthwise(self.slopes(self.up(x))))))


def test_golden_prelu(golden) -> None:
    graph_module = apply_exactly(canonical(randomise(Slopes()), X), FoldConstants(), FuseEpilogues())
    golden(print_graph(graph_module), "fuse_prelu")


def test_golden(golden) -> None:

    graph_module = apply_exactly(canonical(randomise(Residual()), X), FoldConstants(), FoldBatchnorm(), FuseEpilogues())
    golden(print_graph(graph_module), "fuse_epilogues")


ZOO = {
    "lenet5": ({"conv2d": 2, "pool2d": 2, "reshape": 1, "linear": 2}, {"relu": 3, "none": 1}, 0),
    "mobilenet_v2": ({"conv2d": 52, "pool2d": 1, "reshape": 1, "linear": 1}, {"clip(0,6)": 35, "none": 18}, 10),
    "efficientnet_lite0": ({"conv2d": 49, "pool2d": 1, "reshape": 1, "linear": 1}, {"clip(0,6)": 33, "none": 17}, 9),
    "resnet18": ({"conv2d": 20, "pool2d": 2, "reshape": 1, "linear": 1}, {"relu": 17, "none": 4}, 8),
    "resnet50": ({"conv2d": 53, "pool2d": 2, "reshape": 1, "linear": 1}, {"relu": 49, "none": 5}, 16),
}
"""Operators, activations and residuals after the exact passes."""


@pytest.mark.parametrize("name", ZOO)
def test_zoo(name: str) -> None:
    calls, activations, residuals = ZOO[name]
    graph_module = canonical(models.create(name, None), torch.zeros(models.entry(name).input_shape))
    graph_module = apply_exactly(graph_module, FoldBatchnorm(), FuseEpilogues(), rtol=5e-5)
    assert operators(graph_module) == calls
    layers = [arguments(node) for node in (*nodes(graph_module, "conv2d"), *nodes(graph_module, "linear"))]
    assert {kind: sum(layer["activation"] == kind for layer in layers) for kind in activations} == activations
    assert sum(layer["residual"] is not None for layer in layers) == residuals
    assert not any(reasons(node) for node in graph_module.graph.nodes)
