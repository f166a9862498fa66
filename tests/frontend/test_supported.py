"""What pcc cannot compile is one error that names all of it."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcc.errors import PccError
from pcc.frontend.supported import check_supported, refuse_unsupported
from pcc.frontend.torch_module import import_module
from pcc.passes.canonicalize import Canonicalize
from pcc.passes.decompose import Decompose
from pcc.passes.manager import PassManager
from tests.nets import NETS, make


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(x @ x.transpose(1, 2), -1) @ x


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.volume = nn.Conv3d(1, 3, 2)
        self.attend = Attention()

    def forward(self, x: Tensor) -> Tensor:
        y = self.volume(x.unsqueeze(1)).flatten(2)
        values = torch.logcumsumexp(self.attend(y), 1)
        return values.lgamma() + x.digamma().mean()


def test_every_node_is_named_with_its_place_and_reason() -> None:
    graph_module = import_module(Mixed(), (torch.randn(1, 3, 4, 4),))
    with pytest.raises(PccError) as caught:
        PassManager([Decompose(), Canonicalize()], [refuse_unsupported])(graph_module)
    text = str(caught.value)
    assert text.startswith("pcc cannot compile 4 operators of this model: ")
    assert "aten.convolution.default (node convolution, in volume, at test_supported.py:" in text
    assert ": 3-d convolution; pcc compiles those of images and rows: cut the volume into images)" in text
    assert "aten.logcumsumexp.default (node logcumsumexp" in text
    assert "aten.lgamma.default" in text
    assert "aten.digamma.default" in text
    assert "\n" not in text


@pytest.mark.parametrize("name", NETS)
def test_cnns_are_supported(name: str) -> None:
    net, inputs = make(name)
    graph_module = import_module(net, inputs)
    PassManager([Decompose(), Canonicalize()])(graph_module)
    check_supported(graph_module)


def test_anything_may_be_computed_from_constants() -> None:
    class Standardised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            deviation, mean = torch.std_mean(self.weight, dim=(1, 2, 3), keepdim=True)
            return F.conv2d(x, (self.weight - mean) / deviation) + torch.linspace(0, 1, 6)

    graph_module = import_module(Standardised(), (torch.randn(1, 3, 8, 8),))
    PassManager([Decompose(), Canonicalize()])(graph_module)
    check_supported(graph_module)


@pytest.mark.parametrize(
    ("function", "shape", "reason"),
    [
        (lambda x: x.double() * 2, (4,), "float64"),
        (lambda x: x * 1e39, (4,), "the number 1e\\+39"),
        (
            lambda x: (x * 2, x[:, 8:]),
            (1, 8, 4, 4),
            r"aten.slice.Tensor \(node slice_1, at test_supported.py:.*: its result is empty, 1x0x4x4\)",
        ),
        (lambda x: torch.logcumsumexp(x, 0), (8,), r"1 operator of this model: aten.logcumsumexp.default"),
        (lambda x: x.argmax() & 3, (4,), "the bits of int64"),
        (
            lambda x: F.grid_sample(x, torch.zeros(1, 2, 2, 2, 3), align_corners=False),
            (1, 1, 4, 4, 4),
            "sampling of volumes",
        ),
        (
            lambda x: torch.fft.rfft(x),
            (8,),
            r"aten.fft_rfft.default \(.*: it computes a spectrum, .* a table of cosines",
        ),
        (
            lambda x: torch.linalg.inv(x),
            (4, 4),
            r"aten.linalg_inv.default \(.*: it takes a matrix apart; .* before it\)",
        ),
        (lambda x: F.max_pool3d(x, 2), (1, 4, 4, 4), "it works on volumes"),
        (lambda x: x.lgamma(), (4,), "pcc does not know it: write it with other operators, or end the model before it"),
    ],
)
def test_reasons(function, shape: tuple[int, ...], reason: str) -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    graph_module = import_module(Net(), (torch.randn(shape),))
    PassManager([Decompose(), Canonicalize()])(graph_module)
    with pytest.raises(PccError, match=reason):
        check_supported(graph_module)
