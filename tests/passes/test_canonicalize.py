"""Canonicalize: golden texts of small networks, the same numbers for every form it knows, nothing left to do the second
time."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule

from pcc.frontend.supported import check_supported
from pcc.frontend.torch_module import import_module
from pcc.ir.graph import arguments, layer_name, shape_of
from pcc.ir.printer import print_graph
from pcc.ir.verify import relative_error, run_graph, verify_structure
from pcc.passes.canonicalize import Canonicalize
from pcc.passes.decompose import Decompose
from tests.nets import NETS, make
from tests.passes.find import call, calls, operators


class Net(nn.Module):
    """A function with a few constants at hand."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.function = function
        self.matrix = nn.Parameter(torch.randn(7, 5, generator=generator))
        self.row = nn.Parameter(torch.randn(5, generator=generator))
        self.filters = nn.Parameter(torch.randn(6, 4, 3, 2, generator=generator))
        self.slopes = nn.Parameter(torch.rand(4, generator=generator))

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(self, *inputs)


def canonical(net: nn.Module, *inputs: Tensor) -> GraphModule:
    """The canonical graph, after checking all that must hold of it."""
    graph_module = import_module(net, inputs)
    Decompose()(graph_module)
    Canonicalize()(graph_module)
    verify_structure(graph_module)
    check_supported(graph_module)
    result = net(*inputs)
    expected = tuple(result.values()) if isinstance(result, dict) else (result,)
    assert relative_error(run_graph(graph_module, inputs), expected) < 2e-6
    text = print_graph(graph_module)
    assert not Canonicalize()(graph_module).modified
    assert print_graph(graph_module) == text
    return graph_module


@pytest.mark.parametrize("name", NETS)
def test_networks(name: str, golden) -> None:
    net, inputs = make(name)
    golden(print_graph(canonical(net, *inputs)), f"canonicalize_{name}")


def test_node_names_and_layers_stay() -> None:
    net, inputs = make("residual")
    graph_module = canonical(net, *inputs)
    convs = {node.name: layer_name(node) for node in calls(graph_module, "pcc.conv2d")}
    assert convs == {
        "stem_0": "stem.0",
        "first_0": "first.0",
        "second_0_0": "second.0.0",
        "second_1": "second.1",
        "shortcut": "shortcut",
    }


IMAGE = (2, 4, 9, 7)
ONE = [
    # activations
    (lambda m, x: F.relu(x), "relu(x0)"),
    (lambda m, x: F.relu6(x), "clip(x0,0,6)"),
    (lambda m, x: F.hardtanh(x, -0.5, 2.0), "clip(x0,-0.5,2)"),
    (lambda m, x: F.hardtanh(x, 0.0, torch.inf), "relu(x0)"),
    (lambda m, x: x.clamp(min=0), "relu(x0)"),
    (lambda m, x: x.clamp(max=0.5), "min(x0,0.5)"),
    (lambda m, x: x.clamp(min=-0.5), "max(x0,-0.5)"),
    (lambda m, x: torch.clip(x, -1, 1), "clip(x0,-1,1)"),
    (lambda m, x: x.clamp(-torch.inf, 0.5), "min(x0,0.5)"),
    (lambda m, x: torch.log1p(x.abs()) + torch.expm1(x), "log1p(x0)"),
    (lambda m, x: F.softplus(x, 2.0, 0.7), "softplus(x0,2,0.7)"),
    (lambda m, x: F.hardswish(x), "hardswish(x0)"),
    (lambda m, x: F.hardsigmoid(x), "hardsigmoid(x0)"),
    (lambda m, x: F.silu(x), "silu(x0)"),
    (lambda m, x: x.sigmoid(), "sigmoid(x0)"),
    (lambda m, x: x.tanh(), "tanh(x0)"),
    (lambda m, x: F.leaky_relu(x, 0.3), "leaky_relu(x0,0.3)"),
    (lambda m, x: F.gelu(x), "gelu(x0)"),
    # arithmetic
    (lambda m, x: x + x, "add(x0,x0)"),
    (lambda m, x: x + 1, "add(x0,1)"),
    (lambda m, x: torch.add(x, x, alpha=3), "add(x0,mul(x0,3))"),
    (lambda m, x: 1 - x, "sub(1,x0)"),
    (lambda m, x: torch.sub(x, 2, alpha=0.5), "sub(x0,1)"),
    (lambda m, x: x / 4, "div(x0,4)"),
    (lambda m, x: 1 / (x + 10), "reciprocal"),
    (lambda m, x: x.abs().sqrt(), "abs(x0)"),
    (lambda m, x: x**2, "mul(x0,x0)"),
    (lambda m, x: x.abs() ** 1.5, "pow(x0,1.5)"),
    (lambda m, x: torch.maximum(x, -x), "max(x0,x1)"),
    (lambda m, x: torch.minimum(x, x * 2).exp(), "min(x0,x1)"),
    (lambda m, x: x * torch.tensor(0.5), "mul(x0,0.5)"),
    (lambda m, x: F.prelu(x, m.slopes), "prelu(x0,x1)"),
]


@pytest.mark.parametrize(("function", "text"), ONE, ids=[text for _, text in ONE])
def test_elementwise(function: Callable[..., Tensor], text: str) -> None:
    graph_module = canonical(Net(function), torch.randn(IMAGE))
    assert any(text in str(arguments(node)["expression"]) for node in calls(graph_module, "pcc.elementwise"))
    assert set(operators(graph_module)) <= {"pcc.elementwise", "aten.reshape"}


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: F.gelu(x, approximate="tanh"),
        lambda m, x: F.elu(x * 3, 0.7),
        lambda m, x: F.selu(x),
        lambda m, x: torch.lerp(x, x.exp(), 0.25) + torch.lerp(x, x.exp(), 0.75),
        lambda m, x: F.celu(x, 1.3),
        lambda m, x: F.softplus(x * 50),
        lambda m, x: F.softplus(x * 3, beta=2.0),
        lambda m, x: F.mish(x * 30),
        lambda m, x: F.logsigmoid(x * 40),
        lambda m, x: torch.rsqrt(x.abs() + 1) + torch.log(x.abs() + 1),
        lambda m, x: x + m.row[:1] * x[:, :, :1] - x[:, :1],
    ],
)
def test_composed_functions(function: Callable[..., Tensor]) -> None:
    assert set(operators(canonical(Net(function), torch.randn(IMAGE)))) <= {
        "pcc.elementwise",
        "aten.slice.Tensor",
        "aten.reshape",
    }


MOVES = [
    (lambda m, x: x.flatten(1), ["aten.reshape"]),
    (lambda m, x: x.view(2, -1).unsqueeze(1).squeeze().reshape(4, 126), ["aten.reshape"]),
    (lambda m, x: x.unsqueeze(0).squeeze(0), []),
    (lambda m, x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2), []),
    (lambda m, x: x.permute(0, 2, 3, 1).transpose(-1, 1), ["aten.permute"]),
    (lambda m, x: x[:1].transpose(0, 1), ["aten.slice.Tensor", "aten.reshape"]),
    (lambda m, x: x[:, 1:3, ::2], ["aten.slice.Tensor", "aten.slice.Tensor"]),
    (lambda m, x: x[:, -1], ["aten.slice.Tensor", "aten.reshape"]),
    (lambda m, x: torch.cat([*x.split([1, 3], 1)][::-1], 1), ["aten.slice.Tensor", "aten.slice.Tensor", "pcc.concat"]),
    (lambda m, x: torch.stack(x.unbind(2), -1), ["aten.slice.Tensor"] * 9 + ["aten.reshape"] * 9 + ["pcc.concat"]),
    (lambda m, x: x[:, :1].expand(-1, 3, -1, -1), ["aten.slice.Tensor", "aten.expand"]),
    (lambda m, x: x[:, :1].repeat(1, 2, 3, 1), ["aten.slice.Tensor", "pcc.concat", "aten.expand"]),
    (lambda m, x: torch.roll(x, (2, -1), (1, 3)), ["aten.slice.Tensor", "aten.slice.Tensor", "pcc.concat"] * 2),
    (lambda m, x: F.pad(x, (1, -2, 0, 3), value=0.5), ["aten.slice.Tensor", "aten.constant_pad_nd"]),
    (lambda m, x: F.pad(x, (0, 0, 0, 0)), []),
    (lambda m, x: x.clamp(-torch.inf, torch.inf), []),
    (lambda m, x: torch.cat([x]).clone().contiguous(), []),
    (lambda m, x: F.dropout(x, 0.5, training=False).detach(), []),
    (lambda m, x: F.pixel_shuffle(x, 2), ["aten.reshape", "aten.permute", "aten.reshape"]),
    (lambda m, x: F.channel_shuffle(x, 2), ["aten.reshape", "aten.permute", "aten.reshape"]),
]


@pytest.mark.parametrize(("function", "expected"), MOVES)
def test_data_movement(function: Callable[..., Tensor], expected: list[str]) -> None:
    found = operators(canonical(Net(function), torch.randn(IMAGE)))
    assert sorted(found) == sorted(expected)


CONVOLUTIONS = [
    (lambda m, x: F.conv2d(x, m.filters, None, 2, 1), [1, 1, 1, 1]),
    (lambda m, x: F.conv2d(x, m.filters, padding="same"), [1, 0, 1, 1]),
    (lambda m, x: F.conv2d(x, m.filters, padding="same", dilation=(1, 3)), [1, 1, 1, 2]),
    (lambda m, x: F.conv2d(x, m.filters, padding="valid"), [0, 0, 0, 0]),
    (lambda m, x: F.conv2d(F.pad(x, (0, 1, 2, 3)), m.filters, None, (2, 3), (1, 0)), [3, 0, 4, 1]),
    (lambda m, x: F.conv2d(F.pad(x, (1, 2)), m.filters), [0, 1, 0, 2]),
    (lambda m, x: F.conv2d(F.pad(F.pad(x, (1, 0)), (0, 0, 2, 0)), m.filters), [2, 1, 0, 0]),
    (lambda m, x: F.conv2d(torch.cat([x, x], 1), m.filters, groups=2), [0, 0, 0, 0]),
    (lambda m, x: F.conv2d(F.pad(x, (1, 1), value=1.0), m.filters), [0, 0, 0, 0]),
    (lambda m, x: F.conv2d(F.pad(x[:, :3], (0, 0, 0, 0, 0, 1)), m.filters), [0, 0, 0, 0]),
]


@pytest.mark.parametrize(("function", "padding"), CONVOLUTIONS)
def test_convolutions_take_padding_in(function: Callable[..., Tensor], padding: list[int]) -> None:
    assert call(canonical(Net(function), torch.randn(IMAGE)), "pcc.conv2d").args[5] == padding


def test_padding_with_other_users_stays_for_them() -> None:
    graph_module = canonical(
        Net(lambda m, x: F.conv2d(y := F.pad(x, (1, 1, 1, 1)), m.filters).amax() + y.amax()), torch.randn(IMAGE)
    )
    assert call(graph_module, "pcc.conv2d").args[5] == [1, 1, 1, 1]
    assert len(calls(graph_module, "aten.constant_pad_nd")) == 1


POOLS = [
    (lambda m, x: F.max_pool2d(x, 3, 2, 1), "max", [3, 3], [2, 2], [1, 1, 1, 1]),
    (lambda m, x: F.max_pool2d(x, (3, 2), ceil_mode=True), "max", [3, 2], [3, 2], [0, 0, 0, 0]),
    (lambda m, x: F.max_pool2d(x, 2, 1, dilation=3), "max", [2, 2], [1, 1], [0, 0, 0, 0]),
    (lambda m, x: F.max_pool2d(x, 2, return_indices=True)[0], "max", [2, 2], [2, 2], [0, 0, 0, 0]),
    (lambda m, x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), "avg", [3, 3], [2, 2], [1, 1, 1, 1]),
    (lambda m, x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), "avg", [3, 3], [2, 2], [1, 1, 1, 1]),
    (lambda m, x: F.avg_pool2d(F.pad(x, (1, 0, 0, 2)), 3), "avg", [3, 3], [3, 3], [0, 1, 2, 0]),
    (lambda m, x: F.avg_pool2d(x, 2, divisor_override=3), "avg", [2, 2], [2, 2], [0, 0, 0, 0]),
    (lambda m, x: F.avg_pool2d(x, 3, 2, 1, True, divisor_override=3), "avg", [3, 3], [2, 2], [1, 1, 1, 1]),
    (lambda m, x: F.adaptive_avg_pool2d(x, 1), "avg", [9, 7], [9, 7], [0, 0, 0, 0]),
    (lambda m, x: F.adaptive_avg_pool2d(x, (3, None)), "avg", [3, 1], [3, 1], [0, 0, 0, 0]),
    (lambda m, x: F.adaptive_max_pool2d(x, (3, 7)), "max", [3, 1], [3, 1], [0, 0, 0, 0]),
    (lambda m, x: F.adaptive_avg_pool2d(x, (3, 14)), "avg", [3, 1], [3, 1], [0, 0, 0, 0]),
    (lambda m, x: x.mean((2, 3)), "avg", [9, 7], [9, 7], [0, 0, 0, 0]),
    (lambda m, x: x.mean((-1, -2), keepdim=True), "avg", [9, 7], [9, 7], [0, 0, 0, 0]),
    (lambda m, x: x.mean(1, keepdim=True), "avg", [4, 1], [4, 1], [0, 0, 0, 0]),
    (lambda m, x: x.flatten(2).mean(-1), "avg", [1, 63], [1, 63], [0, 0, 0, 0]),
    (lambda m, x: x.amax((0, 2)), "max", [1, 18], [1, 18], [0, 0, 0, 0]),
    (lambda m, x: x.sum((2, 3)), "avg", [9, 7], [9, 7], [0, 0, 0, 0]),
    (lambda m, x: x.mean(), "avg", [1, 504], [1, 504], [0, 0, 0, 0]),
]


@pytest.mark.parametrize(("function", "mode", "kernel", "stride", "padding"), POOLS)
def test_pools(
    function: Callable[..., Tensor], mode: str, kernel: list[int], stride: list[int], padding: list[int]
) -> None:
    assert list(call(canonical(Net(function), torch.randn(IMAGE)), "pcc.pool2d").args[1:5]) == [
        mode,
        kernel,
        stride,
        padding,
    ]


def test_adaptive_pooling_to_what_is_there_is_nothing_and_to_more_is_repetition() -> None:
    assert operators(canonical(Net(lambda m, x: F.adaptive_avg_pool2d(x, (9, 7)) * 2), torch.randn(IMAGE))) == [
        "pcc.elementwise"
    ]
    assert operators(canonical(Net(lambda m, x: F.adaptive_avg_pool2d(x, 7)), torch.randn(2, 3, 1, 1))) == [
        "pcc.resize2d"
    ]


@pytest.mark.parametrize("pool", [F.adaptive_avg_pool2d, F.adaptive_max_pool2d])
@pytest.mark.parametrize("size", [(4, 3), (2, 7), (7, 7), (5, 1), (11, 14)])
def test_adaptive_pooling_with_windows_of_different_sizes(pool: Callable[..., Tensor], size: tuple[int, int]) -> None:
    x = torch.randn(IMAGE)
    (pooled,) = run_graph(canonical(Net(lambda m, x: pool(x, size)), x), [x])
    torch.testing.assert_close(pooled, pool(x, size))


def test_zeros_padded_before_max_pooling_stay_zeros() -> None:
    graph_module = canonical(Net(lambda m, x: F.max_pool2d(F.pad(x - 5, (1, 1, 1, 1)), 3)), torch.randn(IMAGE))
    assert call(graph_module, "pcc.pool2d").args[4] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda m, x: F.linear(x, m.matrix), (3, 5)),
        (lambda m, x: F.linear(x, m.matrix, m.matrix[:, 0]), (3, 2, 5)),
        (lambda m, x: F.linear(x, m.matrix), (5,)),
        (lambda m, x: x @ m.matrix.t(), (3, 5)),
        (lambda m, x: x @ m.matrix, (2, 3, 7)),
        (lambda m, x: torch.mm(x, m.matrix), (3, 7)),
        (lambda m, x: torch.addmm(m.row, x, m.matrix), (3, 7)),
        (lambda m, x: F.linear(x.flatten(1), m.matrix), (3, 5, 1, 1)),
    ],
)
def test_linear(function: Callable[..., Tensor], shape: tuple[int, ...]) -> None:
    graph_module = canonical(Net(function), torch.randn(shape))
    node = call(graph_module, "pcc.linear")
    assert len(shape_of(node)) == 2
    assert set(operators(graph_module)) <= {"pcc.linear", "aten.reshape", "aten.permute", "aten.slice.Tensor"}


@pytest.mark.parametrize("shape", [(1, 2, 5, 7), (2, 3, 1, 1), (1, 1, 13, 2)])
@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: F.interpolate(x, scale_factor=2, mode="nearest"),
        lambda m, x: F.interpolate(x, scale_factor=(1.5, 3.2), mode="nearest"),
        lambda m, x: F.interpolate(x, size=(11, 6), mode="nearest"),
        lambda m, x: F.interpolate(x, scale_factor=2.3, mode="bilinear"),
        lambda m, x: F.interpolate(x, size=(9, 9), mode="bilinear", align_corners=True),
        lambda m, x: F.interpolate(x, scale_factor=1.9, mode="bilinear", recompute_scale_factor=True),
        lambda m, x: nn.UpsamplingBilinear2d(scale_factor=3)(x),
    ],
)
def test_resize(function: Callable[..., Tensor], shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    same_size = function(None, x).shape == x.shape
    assert operators(canonical(Net(function), x)) == ([] if same_size else ["pcc.resize2d"])


def test_resize_to_the_same_size_is_nothing() -> None:
    assert operators(
        canonical(Net(lambda m, x: F.interpolate(x, size=(9, 7), mode="bilinear") + 1), torch.randn(IMAGE))
    ) == ["pcc.elementwise"]


@pytest.mark.parametrize(
    "function", [lambda m, x: F.softmax(x, -1), lambda m, x: F.log_softmax(x, 1), lambda m, x: nn.Softmax2d()(x)]
)
def test_softmax(function: Callable[..., Tensor]) -> None:
    assert operators(canonical(Net(function), torch.randn(IMAGE))) == ["pcc.softmax"]


def test_batch_norm_is_one_node() -> None:
    net = nn.Sequential(
        nn.BatchNorm2d(4, affine=False), nn.Dropout2d(), nn.Identity(), nn.BatchNorm2d(4, eps=1e-3)
    ).eval()
    graph_module = canonical(net, torch.randn(IMAGE))
    assert operators(graph_module) == ["aten.batch_norm", "aten.batch_norm"]
    assert [node.name for node in calls(graph_module, "aten.batch_norm")] == ["_0", "_3"]


def test_an_output_that_is_an_input() -> None:
    graph_module = canonical(Net(lambda m, x: F.dropout(x, training=False)), torch.randn(IMAGE))
    assert operators(graph_module) == []


def test_a_constant_matrix_that_is_repeated_is_a_linear_layer() -> None:
    """PyTorch repeats the matrix where it cannot take the rows of the left side as one matrix; a matrix that is itself
    repeated rows stays what it is."""
    x = torch.randn(4, 3, 7)
    graph_module = canonical(Net(lambda net, x: x.transpose(0, 1) @ net.matrix), x)
    assert operators(graph_module).count("pcc.linear") == 1
    assert "pcc.matmul" not in operators(graph_module)
    canonical(Net(lambda net, x: x.transpose(0, 1) @ net.matrix[:1].expand(7, 5)), x)
    canonical(Net(lambda net, x: x.transpose(0, 1) @ torch.full((7, 5), 0.5)), x)
