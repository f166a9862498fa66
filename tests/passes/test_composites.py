"""Composite operators, taken apart, canonical and folded, compute what PyTorch computes: shapes, odd sizes, negative
axes, broadcasting."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcc.frontend.supported import check_supported
from pcc.frontend.torch_module import import_module
from pcc.ir.ops import CONV2D
from pcc.ir.verify import run_graph, verify_structure
from pcc.passes.canonicalize import Canonicalize
from pcc.passes.composites.convolution import phases_of
from pcc.passes.decompose import Decompose
from pcc.passes.fold_constants import FoldConstants
from tests.passes.find import calls, operators

IMAGE = (2, 4, 7, 9)


class Net(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def check(net: nn.Module | Callable[[Tensor], Tensor], shape: tuple[int, ...] = IMAGE):
    """The canonical graph, which agrees with the network."""
    torch.manual_seed(0)
    module, x = (net if isinstance(net, nn.Module) else Net(net)).eval(), torch.randn(shape)
    with torch.no_grad():
        wanted = module(x)
    graph_module = import_module(module, (x,))
    for step in (Decompose(), Canonicalize(), FoldConstants()):
        step(graph_module)
        verify_structure(graph_module)
    check_supported(graph_module)
    (got,) = run_graph(graph_module, (x,))
    torch.testing.assert_close(got.double(), wanted.double(), rtol=1e-5, atol=1e-5, equal_nan=True)
    return graph_module


TRANSPOSED = [
    {"kernel_size": 2, "stride": 2},
    {"kernel_size": 4, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
    {"kernel_size": 3},
    {"kernel_size": 3, "padding": 4, "dilation": 3},
    {"kernel_size": 3, "stride": 3, "dilation": 2, "groups": 2},
    {"kernel_size": 2, "stride": 3, "bias": False},
    {"kernel_size": 2, "stride": 3},
    {"kernel_size": (5, 3), "stride": (1, 2), "padding": (0, 4), "dilation": (2, 3), "output_padding": (0, 1)},
    {"kernel_size": 4, "stride": 4, "dilation": 2, "padding": 3, "groups": 4},
    {"kernel_size": 1, "stride": 2, "output_padding": 1},
]


@pytest.mark.parametrize("options", TRANSPOSED, ids=str)
def test_transposed_convolution(options: dict[str, Any]) -> None:
    check(nn.ConvTranspose2d(4, 8, **options))


def test_phases_that_look_alike_are_one_convolution_and_others_one_each() -> None:
    assert len(calls(check(nn.ConvTranspose2d(4, 8, 2, 2)), "pcc.conv2d")) == 1
    graph_module = check(nn.ConvTranspose2d(4, 8, 4, 2, 1))
    assert [
        list(node.args[1].meta["val"].shape)
        for node in graph_module.graph.find_nodes(op="call_function", target=CONV2D)
    ] == [[8, 4, 2, 2]] * 4


def test_a_phase_has_the_taps_that_reach_it() -> None:
    """Kernel 5, stride 2, dilation 3, padding 1: tap t of output o reads input (o + 1 - 3 t) / 2."""
    for phase, found in enumerate(phases_of(6, 5, 2, 1, 3, 25)):
        taps = [t for t in range(5) if (phase + 1 - 3 * t) % 2 == 0]
        assert [4 - place for place in found.taps] == taps[::-1]
        assert found.dilation == 3
        assert -found.before == (phase + 1 - 3 * taps[-1]) // 2


LAYERS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.ConvTranspose1d(4, 6, 4, 2, 1), (2, 4, 9)),
    (nn.Conv1d(4, 6, 3, 2, 1, groups=2), (2, 4, 9)),
    (nn.Conv1d(4, 6, 4, padding="same"), (2, 4, 9)),
    (nn.Conv1d(4, 6, 3, padding=1, padding_mode="circular"), (2, 4, 9)),
    (nn.Conv2d(4, 6, 3, padding=2, padding_mode="reflect"), IMAGE),
    (nn.Conv1d(4, 6, 3), (4, 9)),
    (nn.Conv2d(4, 6, 3), (4, 7, 9)),
    (nn.ConvTranspose2d(4, 6, 3, 2), (4, 7, 9)),
    (nn.GroupNorm(4, 4), IMAGE),
    (nn.InstanceNorm2d(4, affine=True, track_running_stats=True), IMAGE),
    (nn.InstanceNorm1d(4), (2, 4, 9)),
    (nn.LayerNorm([7, 9]), IMAGE),
    (nn.RMSNorm(9), IMAGE),
    (nn.LocalResponseNorm(3), IMAGE),
    (Net(lambda x: F.bilinear(x, x * 2, torch.ones(3, 9, 9))), (2, 9)),
]


EDGES: list[Callable[[Tensor], Tensor]] = [
    lambda x: F.max_pool2d(
        x, (9, 2), (2, 3), (1, 1), ceil_mode=True
    ),  # a window that is larger than the image, and hangs over
    lambda x: F.avg_pool2d(x, (8, 2), (3, 1), ceil_mode=True, count_include_pad=False),
    lambda x: F.pad(x[..., :1], (2, -1), value=1.5) + x[..., :2],  # cropped to nothing, then padded
    lambda x: (x * 3).to(torch.int64).clone().float(),
]


@pytest.mark.parametrize("function", EDGES)
def test_edges(function: Callable[[Tensor], Tensor]) -> None:
    check(Net(function))


@pytest.mark.parametrize(
    ("layer", "shape"), LAYERS, ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value)
)
def test_layers(layer: nn.Module, shape: tuple[int, ...]) -> None:
    check(layer, shape)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}, {"bias": False}], ids=str
)
def test_recurrent_layers(kind: type[nn.Module], options: dict[str, Any]) -> None:
    layer = kind(8, 6, **options)
    check(_First(layer), (3, 4, 8))
    check(_First(layer), (4, 8))


class _First(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        output, last = self.layer(x)
        return output.sum() + (last[1] if isinstance(last, tuple) else last)


def grid(x: Tensor, scale: float) -> Tensor:
    return x[:, :2, :5, :6].permute(0, 2, 3, 1) * scale


FUNCTIONS: list[Callable[[Tensor], Tensor]] = [
    lambda x: F.max_pool2d(x[0], 2),
    lambda x: F.avg_pool2d(x[0], 3, 2, 1, ceil_mode=True),
    lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, divisor_override=5),
    lambda x: F.adaptive_avg_pool2d(x[0], 3),
    lambda x: F.adaptive_max_pool2d(x[0], 3),
    lambda x: F.max_pool1d(x[0], 3, 2, 1, ceil_mode=True),
    lambda x: F.lp_pool1d(x[0], 2, 3),
    lambda x: F.lp_pool2d(x, 3, 3, 2),
    lambda x: F.grid_sample(x, grid(x, 1.5), align_corners=False),
    lambda x: F.grid_sample(x, grid(x, 1), mode="nearest", padding_mode="border", align_corners=True),
    lambda x: F.grid_sample(x, grid(x, 3), padding_mode="reflection", align_corners=True),
    lambda x: F.grid_sample(x, grid(x, 3), padding_mode="reflection", align_corners=False),
    lambda x: F.grid_sample(x, grid(x, 1.3), mode="bicubic", align_corners=False),
    lambda x: F.grid_sample(x, grid(x, 1.3), mode="bicubic", padding_mode="reflection", align_corners=False),
    lambda x: F.affine_grid(x[:, :2, 0, :3], [2, 4, 8, 5], align_corners=False),
    lambda x: F.interpolate(x, size=(5, 20), mode="bicubic", align_corners=True),
    lambda x: F.interpolate(x, scale_factor=(0.7, 1.9), mode="bicubic"),
    lambda x: F.interpolate(x, scale_factor=(0.7, 1.9), mode="nearest-exact"),
    lambda x: F.interpolate(x, size=(3, 20), mode="bicubic", antialias=True),
    lambda x: F.interpolate(x, size=(3, 4), mode="bilinear", antialias=True, align_corners=True),
    lambda x: F.interpolate(x, scale_factor=0.4, mode="bilinear", antialias=True),
    lambda x: F.interpolate(x[0], size=5, mode="linear", align_corners=True),
    lambda x: F.interpolate(x[0], scale_factor=1.7),
    lambda x: F.interpolate(x, size=(5, 4), mode="area"),
    lambda x: F.pad(x, (1, 2, 3, 0), mode="reflect"),
    lambda x: F.pad(x, (1, 2, 3, 0), mode="replicate"),
    lambda x: F.pad(x, (1, 2, 3, 0), mode="circular"),
    lambda x: F.pad(x, (-1, 2, 3, -2), mode="replicate"),
    lambda x: F.pad(x, (-2, 3, 1, -2), mode="circular"),
    lambda x: torch.concatenate([torch.absolute(x), torch.arctan2(x, x.negative() + 4)], 1),
    lambda x: sum(torch.broadcast_tensors(x, x.mean(1, keepdim=True))),
    lambda x: F.mse_loss(x, x.relu()) + F.l1_loss(x, x.relu()) + F.smooth_l1_loss(x, 2 * x) + F.huber_loss(x, 3 * x),
    lambda x: torch.median(x) + torch.median(x, 1).values,
    lambda x: torch.empty_like(x).copy_(x) + x.new_empty(x.shape).copy_(2 * x),
    lambda x: x[:, :, x[:, 0].argmax(1)[0]],
    lambda x: x[torch.arange(2), :, torch.tensor([1, -1])],
    lambda x: x[:, [0, 1], [2, 3]],
    lambda x: x.gather(2, x.argmax(2, keepdim=True)),
    lambda x: torch.take_along_dim(x, x.argmax(2, keepdim=True), 2),
    lambda x: torch.zeros(2, 4).scatter(1, torch.tensor([[1], [2]]), x[:, :1, 0, 0]),
    lambda x: x.scatter(1, torch.tensor([[[[1]]], [[[2]]]]), 5.0),
    lambda x: torch.embedding(torch.arange(35.0).reshape(7, 5), x.argmax(2)),
    lambda x: torch.stack([x.flatten(2).argmax(2) % 9, x.flatten(2).argmax(2) // 9], -1).float(),
    lambda x: x.median(2)[0],
    lambda x: x.sort(2, descending=True)[1],
    lambda x: torch.cat([part.float() for part in x.topk(3, -2)], 2),
    lambda x: x.cumprod(-2) + x.cumsum(-1),
    lambda x: (x > 0).cumsum(1) + (x > 0).cumsum(1, dtype=torch.float32),
    lambda x: x.logsumexp((1, 2)),
    lambda x: torch.where(x > 0, x, -torch.inf).logsumexp(1),
    lambda x: x.var((0, -1), unbiased=False),
    lambda x: x.std() + x.prod() + x.argmin(),
    lambda x: x.prod(2, keepdim=True),
    lambda x: (x > 1).any(dim=3).float() + (x > -1).all(dim=3).float(),
    lambda x: torch.cat(torch.aminmax(x, dim=1)),
    lambda x: x.mean(1) + x.amin(1) + x.amax(-3),
    lambda x: x.sum((1, 2)) + x.sum((1, -2)),
    lambda x: x.norm(3, 1) + x.norm(float("inf"), 1) + x.norm(0, 1) + x.norm(1, 1),
    lambda x: F.cosine_similarity(x, x.flip(2), dim=-1),
    lambda x: F.cosine_similarity(x[:, :1], x) + F.cosine_similarity(x[0, :, :1], x, dim=2)[:, :1],
    lambda x: F.normalize(x, dim=-2),
    lambda x: x.tril(-1) + x.triu(2),
    lambda x: x.roll(3) + x.roll((1, -2), (2, 3)) + torch.rot90(torch.rot90(x, 1, (2, 3)), -1, (2, 3)),
    lambda x: x.unfold(2, 3, 2),
    lambda x: F.unfold(x, (3, 2), (2, 1), (1, 0), (2, 3)),
    lambda x: F.fold(x.flatten(1)[:, :48].reshape(2, 12, 4), (5, 4), (3, 2), stride=(2, 2)),
    lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    lambda x: F.scaled_dot_product_attention(x, x, x, torch.ones(7, 7).tril() > 0, scale=0.3),
    lambda x: F.scaled_dot_product_attention(x, x[:, :2], x[:, :2], enable_gqa=True),
    lambda x: F.scaled_dot_product_attention(x, x, x, torch.ones(7, 7).tril(-1) > 0),  # the first sees nothing
    lambda x: F.scaled_dot_product_attention(x, x, x, x[:, :1, :, :1] > 0),
    lambda x: F.scaled_dot_product_attention(x, x, x, torch.full((7, 7), -torch.inf).triu(0)),
    lambda x: x @ x[0, 0].t(),
    lambda x: x[0, 0].t() @ x,
    lambda x: x[:, :1].transpose(2, 3) @ x,
    lambda x: torch.ones(3, 7) @ x,
    lambda x: x[0, 0] @ x[0, 0, 0],
    lambda x: torch.addmm(x[0, 0, :, :7], x[0, 0], x[0, 1].t(), beta=2, alpha=0.5),
    lambda x: torch.addmm(x[0, 0, :, :7] / 0, x[0, 0], x[0, 1].t(), beta=0),
    lambda x: torch.baddbmm(x[0, :, :, :7], x[0], x[0].transpose(1, 2), beta=2, alpha=0.5),
    lambda x: torch.einsum("nchw,ncw->nhc", x, x[:, :, 0]),
    lambda x: torch.cdist(x[0], x[1]) + torch.cdist(x[0], x[1], p=1),
    lambda x: (
        F.hardshrink(x) + F.softshrink(x) + F.tanhshrink(x) + F.softsign(x) + F.threshold(x, 0.1, 0.2) + F.rrelu(x)
    ),
    lambda x: x * torch.arange(9) + torch.arange(7)[:, None],
    lambda x: x * (torch.arange(9) > 3),
    lambda x: torch.where(torch.arange(9) > 3, x, 0.0),
    lambda x: torch.nan_to_num(x / (x > 0).float()),
    lambda x: torch.remainder(x, 0.7) + torch.fmod(x, 0.7),
    lambda x: x.floor() + x.round() + x.ceil() + x.trunc() + x.frac() + x.sign(),
    lambda x: 2**x + 0.5**x + x.erf() + x.abs().log1p(),
    lambda x: ((x > 0) & (x < 1) | ~(x == 2)).float(),
    lambda x: x.masked_fill(torch.ones(7, 9).triu(1).bool(), float("-inf")).softmax(-1),
    lambda x: (x.argmax(1) % 3).float(),
    lambda x: torch.zeros(2, 40, 700, 900)[:, :1, 3:10, :9] + x,
    lambda x: F.conv2d(x, x[:, :, :3, :2].flip(0) * 2, padding=(1, 0), stride=(2, 1), dilation=(1, 2)),
    lambda x: F.conv2d(x, x[:, :2, :3, :4].reshape(4, 1, 3, 4), x[0, :, 0, 0], padding="same", groups=4),
    lambda x: F.conv2d(x.flatten(0, 1)[None], x[:, :, 2:5, 3:6].flatten(0, 1)[:, None], groups=8),
    lambda x: F.conv2d(x, torch.ones(4, 4, 1, 1), x[0, :, 0, 0]),
    lambda x: F.conv2d(x, x[:, :, :1, :1]),
    lambda x: F.conv1d(x[0], x[0, :, :, :7].permute(2, 1, 0)[:, :, :3], padding=1),
    lambda x: F.conv_transpose2d(x, x[0, :, None, :3, :2], x[0, 0, 0, :1], stride=2),
    lambda x: F.linear(x, x[0, 0], x[0, 0, :, 0]),
    lambda x: F.linear(x, torch.ones(3, 9), x[0, 0, :3, 0]),
    lambda x: F.batch_norm(x, x.mean((0, 2, 3)), x.var((0, 2, 3)), x[0, :, 0, 0], None),
    lambda x: F.batch_norm(x, None, None, torch.ones(4), torch.ones(4), True),
    lambda x: torch.cat([part.float() for part in F.max_pool2d(x, 3, 2, 1, ceil_mode=True, return_indices=True)]),
    lambda x: torch.cat(
        [part.float() for part in F.max_pool2d(x[0], (2, 3), (2, 1), (1, 0), (2, 3), return_indices=True)]
    ),
    lambda x: torch.cat([part.float() for part in F.adaptive_max_pool2d(x, (3, 4), return_indices=True)]),
    lambda x: torch.cat([part.float() for part in F.adaptive_max_pool2d(x[0], (7, 5), return_indices=True)]),
    lambda x: torch.cat([part.float() for part in F.adaptive_max_pool1d(x[0], 4, return_indices=True)]),
    lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), [2, 2], output_size=(7, 9)),
    lambda x: F.max_unpool2d(*F.max_pool2d(x, 3, 2, return_indices=True), [3, 3], [2, 2]),
    lambda x: torch.zeros(2, 4, 7, 9).scatter_add(3, x.argsort(3), x) + x.scatter(-1, x.argmin(3, keepdim=True), 7.0),
    lambda x: x.scatter_reduce(
        2, x.argmax(2, keepdim=True).expand(-1, -1, 3, -1), x[:, :, :3], "amax", include_self=False
    ),
    lambda x: x.scatter_reduce(2, x.argmax(2, keepdim=True).expand(-1, -1, 3, -1), x[:, :, :3], "mean"),
    lambda x: x.scatter_reduce(
        2, x.argmax(2, keepdim=True).expand(-1, -1, 3, -1), x[:, :, :3], "mean", include_self=False
    ),
    lambda x: x.index_add(1, torch.tensor([1, 1, 3]), x[:, :3], alpha=0.5),
    lambda x: x.index_put((torch.tensor([1, 0]), x[0, 0, 0, :2].argsort()), x[:, 0], accumulate=True),
    lambda x: torch.cat([part.float() for part in (*x.round().cummax(2), *x.round().cummin(-1))]),
    lambda x: x.abs() ** x + torch.pow(x.abs() + 0.1, 1.3) + torch.pow(3, x) + torch.atan2(x, x.flip(2)),
    lambda x: (
        torch.sin(x)
        + torch.cos(x)
        + torch.tan(x)
        + torch.atan(x)
        + torch.asin(x / 9)
        + torch.acos(x / 9)
        + torch.sinh(x)
        + torch.cosh(x)
    ),
    lambda x: torch.asinh(x) + torch.acosh(x.abs() + 1.5) + torch.atanh(x / 9) + torch.logaddexp(x, x * 2),
    lambda x: x.isfinite().float() + torch.heaviside(x, x + 2) + x.signbit().float(),
    lambda x: torch.hypot(x * 1e-30, x.flip(2) * 1e20) / 1e20 + torch.hypot(x, x[:, :1]) + torch.hypot(x.relu(), x * 0),
    lambda x: x.sigmoid().logit() + torch.special.logit(x, 0.2),
    lambda x: torch.cat([part.float() for part in F.max_pool1d(x[0], 3, 2, 1, ceil_mode=True, return_indices=True)]),
    lambda x: torch.cat([part.float() for part in F.max_pool1d(x[0, 0], 2, return_indices=True)]),
    lambda x: torch.cat([x.diagonal(k, 3, -2) for k in (0, 2, -3)], 2) + x.diagonal()[:, :, :2].sum(),
    lambda x: torch.diag_embed(x) + torch.diag_embed(x, dim1=0, dim2=2)[:2, :4, :7].unsqueeze(-1).sum(),
    lambda x: torch.stack(torch.meshgrid(x[0, 0, 0], x[0, 0, :, 0], indexing="xy")),
    lambda x: torch.stack(torch.meshgrid(x[0, 0, 0], x[0, 0, :, 0], x[0, :, 0, 0], indexing="ij")),
    lambda x: torch.cross(x[:, :3], x[:, 1:], dim=1) + torch.linalg.cross(x[:, :3], x[:, 1:, :1], dim=1),
    lambda x: torch.cross(x[:, :3], x[:, 1:]),
    lambda x: F.one_hot(x.argmax(1), 5),
    lambda x: (
        torch.bucketize(x, torch.tensor([-1.0, 0.0, 0.5])) + torch.bucketize(x.round(), torch.arange(3), right=True)
    ),
    lambda x: torch.searchsorted(x.sort(-1)[0], x, side="right") + torch.searchsorted(x[0, 0, 0].sort()[0], x),
    lambda x: torch.bucketize(x / (x > 0).float() * 0, torch.tensor([0.0, 1.0])),
    lambda x: torch.stack([part.float() for part in x.kthvalue(2, 1)]),
    lambda x: torch.cat([part.float() for part in x.kthvalue(4, -2, keepdim=True)]),
    lambda x: (x > -1).amin(1, keepdim=True) * x + x.abs().to(torch.uint8).amin(2, keepdim=True) * 3,
    lambda x: x.index_copy(1, torch.tensor([3, 0]), x[:, :2] * 2),
    lambda x: F.scaled_dot_product_attention(x, x, x, (x[:, :, :, 0] > -0.5)[:, :, None].expand(-1, -1, 7, -1).tril()),
    lambda x: (x[0, 0] > 0).diag_embed().logical_not().float(),
    lambda x: x.sum(1, keepdim=True, dtype=torch.int64) + (x * 3).sum((2, 3), keepdim=True, dtype=torch.int32),
    lambda x: (x.abs() * 20).to(torch.uint8)[..., :2].prod(3),
    lambda x: torch.embedding(torch.arange(35.0).reshape(7, 5), x.argmax(2), sparse=True),
    lambda x: (x * (1 - x.round()).sqrt()).argmin(2) + (x * (1 - x.round()).sqrt()).min(1)[1].sum(1, keepdim=True),
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=[str(index) for index in range(len(FUNCTIONS))])
def test_functions(function: Callable[[Tensor], Tensor]) -> None:
    check(function)


def _in_place(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :2] = x[:, 2:]
    y[:, 2:, 1:] = x[:, :2, :-1]
    y[:, 0] = 1.0
    y[..., ::2] *= 3
    y[:, [1, 2]] = 0.5
    y[y > 0.7] = 0.7
    return y


@pytest.mark.parametrize(
    ("taps", "options"),
    [
        ((3, 3), {}),
        ((3, 2), {"stride": (2, 1), "padding": (1, 2)}),
        ((2, 3), {"dilation": (2, 3), "padding": "same"}),
        ((1, 1), {"stride": 2}),
        ((9, 8), {"padding": 4}),
    ],
)
def test_depthwise_convolutions_with_computed_weights(taps: tuple[int, int], options: dict[str, Any]) -> None:
    check(
        lambda x: F.conv2d(x, x.mean((0, 2, 3))[:, None, None, None] * torch.ones(taps).cumsum(0), groups=4, **options)
    )


def test_assignments_in_place() -> None:
    check(_in_place)


def test_in_place_parts_are_concatenations() -> None:
    def shift(x: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        y[:, :2] = x[:, 2:]
        y[:, 2:] = x[:, :2]
        return y

    assert "pcc.gather" not in operators(check(shift))
