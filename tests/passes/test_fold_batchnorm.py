"""fold-batchnorm: into the layer before, into the layer behind, standing alone; when, and what it says when not."""

import pytest
import torch
from torch import Tensor, nn

from pcc import models
from pcc.errors import PccError
from pcc.ir.graph import constant
from pcc.ir.printer import print_graph
from pcc.passes.fold_batchnorm import FoldBatchnorm
from pcc.passes.fold_constants import FoldConstants
from tests.passes.exact import apply_exactly, canonical, nodes, operators, randomise, reasons

PASSES = (FoldConstants(), FoldBatchnorm())
X = torch.zeros(2, 4, 7, 6)


def norm(channels: int, **options: bool | float) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, **options)  # type: ignore[arg-type]


CONVOLUTIONS = {
    "plain": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "without bias": lambda: nn.Conv2d(4, 6, 3, padding=1, bias=False),
    "strided and dilated": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=(2, 1), dilation=2),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, groups=4, bias=False),
    "depthwise with a multiplier": lambda: nn.Conv2d(4, 8, 3, groups=4),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "1x1": lambda: nn.Conv2d(4, 3, 1),
}


@pytest.mark.parametrize("norm_options", [{}, {"affine": False}, {"eps": 1e-2}], ids=str)
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_into_the_layer_before(kind: str, norm_options: dict[str, bool | float]) -> None:
    conv = CONVOLUTIONS[kind]()
    graph_module = apply_exactly(
        canonical(randomise(nn.Sequential(conv, norm(conv.out_channels, **norm_options), nn.ReLU())), X), *PASSES
    )
    assert operators(graph_module) == {"conv2d": 1, "elementwise": 1}
    assert "0.weight" in dict(graph_module.named_buffers())


TRANSPOSED = {
    "one convolution": {"kernel_size": 2, "stride": 2},
    "one a phase": {"kernel_size": 4, "stride": 2, "padding": 1, "groups": 2},
    "uneven": {"kernel_size": 3, "stride": (2, 3), "padding": 1, "output_padding": 1, "bias": False},
}


@pytest.mark.parametrize("kind", TRANSPOSED)
def test_through_the_moves_of_a_transposed_convolution(kind: str) -> None:
    network = nn.Sequential(nn.ConvTranspose2d(4, 6, **TRANSPOSED[kind]), norm(6), nn.ReLU())  # type: ignore[arg-type]
    counts = operators(apply_exactly(canonical(randomise(network), X), *PASSES))
    assert counts["elementwise"] == 1


class _Joined(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(4, 2, 1), norm(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.cat([nn.functional.pixel_shuffle(self.a(x), 2)[:, :, ::2, ::2], self.b(x)], 1))


def test_through_joined_layers() -> None:
    """Filters of which nothing is left stay as they are."""
    assert "elementwise" not in operators(apply_exactly(canonical(randomise(_Joined()), X), *PASSES))


class _Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 6, 3), norm(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x).transpose(1, 3))


def test_a_filter_of_several_channels_is_left_alone() -> None:
    graph_module = apply_exactly(canonical(randomise(_Shared()), X), *PASSES)
    (alone,) = nodes(graph_module, "elementwise")
    assert "values of conv go to several channels" in reasons(alone)


@pytest.mark.parametrize("kind", ["depthwise", "depthwise with a multiplier", "grouped", "1x1"])
def test_into_the_layer_behind(kind: str) -> None:
    graph_module = apply_exactly(
        canonical(randomise(nn.Sequential(nn.ReLU(), norm(4), CONVOLUTIONS[kind]())), X), *PASSES
    )
    assert operators(graph_module) == {"elementwise": 1, "conv2d": 1}


def test_into_the_layer_behind_with_padding_only_without_shift() -> None:
    network = randomise(nn.Sequential(nn.ReLU(), norm(4), nn.Conv2d(4, 6, 3, padding=1)))
    graph_module = apply_exactly(canonical(network, X), *PASSES)
    assert operators(graph_module) == {"elementwise": 2, "conv2d": 1}
    (alone,) = [node for node in nodes(graph_module, "elementwise") if "mul" in str(node.args[1])]
    said = (
        "not into the layer before: _0 is no convolution or linear layer; not into the layer behind: _2 pads with "
        "zeros, which the batch norm does not shift"
    )
    assert reasons(alone) == f"fold-batchnorm: {said}"

    batch_norm = network[1]
    assert isinstance(batch_norm, nn.BatchNorm2d)
    batch_norm.running_mean.zero_()  # type: ignore[union-attr]
    batch_norm.bias.data.zero_()
    assert operators(apply_exactly(canonical(network, X), *PASSES)) == {"elementwise": 1, "conv2d": 1}


def test_linear_layers() -> None:
    before = randomise(nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)))
    behind = randomise(nn.Sequential(nn.ReLU(), nn.BatchNorm1d(5), nn.Linear(5, 3, bias=False)))
    for network in (before, behind):
        assert operators(apply_exactly(canonical(network, torch.zeros(4, 5)), *PASSES))["linear"] == 1
        assert not nodes(apply_exactly(canonical(network, torch.zeros(4, 5)), *PASSES), "batch_norm")
    assert operators(apply_exactly(canonical(before, torch.zeros(4, 5)), *PASSES)) == {"linear": 1}


class Shared(nn.Module):
    """A convolution with two readers before one norm, a module called twice before another."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1)
        self.n1, self.n2, self.n3 = norm(4), norm(4), norm(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x = self.n1(x) + x
        return self.n2(self.b(x)) + self.n3(self.b(x.relu()))


def test_shared_layers(golden) -> None:

    graph_module = apply_exactly(canonical(randomise(Shared()), X), *PASSES)
    first, *twice = nodes(graph_module, "conv2d")
    assert any("not into the layer before: a has 2 users" in reasons(user) for user in first.users)
    assert twice[0].args[1] is not twice[1].args[1], "the two uses of one convolution have different norms"
    golden(print_graph(graph_module), "fold_batchnorm")


def test_chains_of_norms_and_three_dimensions() -> None:
    chain = nn.Sequential(nn.Conv2d(4, 4, 1), norm(4), norm(4), norm(4))
    assert operators(apply_exactly(canonical(randomise(chain), X), *PASSES)) == {"conv2d": 1}
    alone = nn.Sequential(nn.ReLU(), nn.BatchNorm1d(4))
    assert operators(apply_exactly(canonical(randomise(alone), torch.zeros(2, 4, 9)), *PASSES)) == {"elementwise": 2}


def test_scales_beyond_fp32_stay_outside() -> None:
    network = randomise(nn.Sequential(nn.Conv2d(4, 4, 1), norm(4, eps=0.0)))
    network[0].weight.data *= 1e22  # type: ignore[operator]
    network[1].running_var.fill_(1e-37)  # type: ignore[union-attr]
    graph_module = FoldBatchnorm()(canonical(network, X)).graph_module
    (alone,) = nodes(graph_module, "elementwise")
    assert "the weights of _0 would leave the range of fp32" in reasons(alone)


def test_negative_variance_is_one_line() -> None:
    network = randomise(nn.Sequential(nn.Conv2d(4, 4, 1), norm(4)))
    network[1].running_var.fill_(-1.0)  # type: ignore[union-attr]
    with pytest.raises(PccError, match=r"^batch norm 1: running_var \+ eps is not positive in every channel$"):
        FoldBatchnorm()(canonical(network, X))


def test_folds_in_double_precision() -> None:
    """The folded parameters are those of exact arithmetic, rounded once."""
    network = randomise(nn.Sequential(nn.Conv2d(4, 6, 3), norm(6)))
    conv, batch_norm = network[0], network[1]
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(batch_norm, nn.BatchNorm2d)
    scale = batch_norm.weight.double() / (batch_norm.running_var.double() + batch_norm.eps).sqrt()  # type: ignore[union-attr]
    bias = (conv.bias.double() - batch_norm.running_mean.double()) * scale + batch_norm.bias.double()  # type: ignore[union-attr]
    graph_module = FoldBatchnorm()(canonical(network, X)).graph_module
    (folded,) = nodes(graph_module, "conv2d")
    weight = (conv.weight.double() * scale[:, None, None, None]).float()
    torch.testing.assert_close(constant(folded.args[1]), weight, rtol=0, atol=0)  # type: ignore[arg-type]
    torch.testing.assert_close(constant(folded.args[2]), bias.float(), rtol=2e-7, atol=1e-7)  # type: ignore[arg-type]


def test_zoo() -> None:
    """More networks in the test of fuse-epilogues."""
    graph_module = canonical(models.create("resnet18", None), torch.zeros(1, 3, 64, 64))
    calls = operators(graph_module)
    graph_module = apply_exactly(graph_module, FoldBatchnorm(), rtol=5e-5)
    norms = calls.pop("batch_norm")
    assert norms == calls["conv2d"]
    assert operators(graph_module) == calls
