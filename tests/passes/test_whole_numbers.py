"""Whole numbers and truth values are exact: counts, sums, arithmetic of 8 bits, powers of two."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pcc
from pcc.frontend.torch_module import import_module
from pcc.ir.verify import run_graph
from pcc.passes.canonicalize import Canonicalize
from pcc.passes.decompose import Decompose
from pcc.passes.manager import GraphPass
from pcc.passes.spell_out import SpellOut


class Net(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def some_of(count: int, total: int) -> Tensor:
    """Values of which ``count`` are above zero."""
    return torch.where(torch.arange(total) < count, 1.0, -1.0)[None]


def check(function: Callable[..., Any], inputs: tuple[Tensor, ...], *more: GraphPass) -> None:
    result = function(*inputs)
    graph_module = import_module(Net(function), inputs)
    for step in (Decompose(), Canonicalize(), *more):
        graph_module = step(graph_module).graph_module
    for found, wanted in zip(
        run_graph(graph_module, inputs), result if isinstance(result, tuple) else (result,), strict=True
    ):
        torch.testing.assert_close(found.double(), wanted.double(), rtol=0, atol=0)


COUNTS: list[Callable[[Tensor], Any]] = [
    lambda x: (x > 0).sum(),
    lambda x: (x > 0).sum(1, keepdim=True),
    lambda x: (x > 0).float().sum(-1).long(),
    lambda x: ((x > 0) & (x < 2)).float().sum().int(),
    lambda x: (x.reshape(-1, 1) > 0).expand(-1, 5).sum(0),
    lambda x: x[torch.arange(1), (x > 0).sum(-1) - 1],
    lambda x: torch.bucketize(x, torch.linspace(-2, 2, 41)),
]


@pytest.mark.parametrize(("count", "total"), [(1, 41), (29, 77), (45, 77), (7, 49), (5, 100)])
@pytest.mark.parametrize("function", COUNTS)
def test_counts(function: Callable[[Tensor], Any], count: int, total: int) -> None:
    check(function, (some_of(count, total),))
    check(function, (some_of(count, total),), SpellOut())


def test_sums_of_numbers_and_of_planes() -> None:
    numbers = torch.arange(1, 78).reshape(1, 77)
    check(lambda x: (x.sum(), x.sum(1) - 1, x.reshape(7, 11).sum(0)), (numbers,))
    check(lambda x: (x > 0).sum((2, 3)), (torch.randn(2, 3, 7, 9),))


EIGHT_BITS: list[Callable[[Tensor], Tensor]] = [
    lambda x: x - 128,
    lambda x: 3 - x,
    lambda x: x + x,
    lambda x: x * 5 + 7,
    lambda x: -x,
    lambda x: x.abs(),
    lambda x: x**2,
    lambda x: x // 3 + x % 7,
]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
@pytest.mark.parametrize("function", EIGHT_BITS)
def test_eight_bits_begin_again(function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    x = torch.arange(256).to(dtype)
    check(lambda x: function(x).float(), (x,))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
def test_more_bits_begin_again_as_eight(dtype: torch.dtype) -> None:
    x = torch.tensor([3, 300, -5, 255, -129, 70000], dtype=torch.int32)
    check(lambda x: x.to(dtype).to(torch.int32) + 1, (x,))


def test_truth_added_is_truth() -> None:
    check(lambda x: ((x > 0) + (x > -1)).float() + ((x > 0) * (x < 1)), (torch.linspace(-2, 2, 9),))


def test_logarithms_of_powers_of_two() -> None:
    powers = 2.0 ** torch.arange(-126, 128)
    check(lambda x: torch.log2(x).floor(), (powers,))
    x = (powers * 1.3,)
    graph_module = Canonicalize()(import_module(Net(lambda x: torch.log2(x)), x)).graph_module
    torch.testing.assert_close(run_graph(graph_module, x)[0], torch.log2(x[0]), rtol=1e-6, atol=1e-6)


def test_compiled(tmp_path: Path) -> None:
    def function(x: Tensor, pixels: Tensor) -> tuple[Tensor, ...]:
        above = x > 0
        return (
            above.sum(),
            above.reshape(-1, 1).expand(-1, 5).sum(0),
            x[torch.arange(1), above.sum(-1) - 1],
            (pixels - 128).float(),
            torch.log2(pixels.float() + 1).floor(),
        )

    inputs = some_of(29, 77) * torch.arange(1, 78), torch.arange(256).to(torch.uint8)
    pcc.compile(Net(function), inputs, out=tmp_path / "net")
    found = pcc.load(tmp_path / "net")(*(x.numpy() for x in inputs))
    for value, wanted in zip(found, function(*inputs), strict=True):
        np.testing.assert_array_equal(value, wanted.numpy())
