"""Concatenations and channel shuffles that are where operands are written, against PyTorch."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcc.codegen.interpret import interpret
from pcc.codegen.isa import isa_named
from pcc.codegen.lower import lower
from pcc.codegen.native import run_native
from pcc.codegen.plan_memory import PlanMemory
from pcc.codegen.program import Program
from pcc.codegen.select_kernels import SelectKernels
from pcc.frontend.torch_module import import_module
from pcc.passes.manager import PassManager
from pcc.passes.pipeline import parse_pipeline
from pcc.target import target_named
from tools.bench_peers.light import ShuffleUnit

PASSES = "decompose,canonicalize,fold-constants,fold-batchnorm,fuse-epilogues"


def shuffled(x: Tensor, parts: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, parts, c // parts, h, w).transpose(1, 2).reshape(n, c, h, w)


class Net(nn.Module):
    """Layers to play with; ``formula`` is the forward pass. All end in a convolution: the model's outputs are no
    planes."""

    def __init__(self, formula: Callable[["Net", Tensor], Tensor], channels: int) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.units = nn.Sequential(ShuffleUnit(4, 8, 2), ShuffleUnit(8, 8, 1), ShuffleUnit(8, 8, 1))
        self.last, self.formula = nn.Conv2d(channels, 3, 1), formula

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.formula(self, x))


CASES: dict[str, tuple[Callable[[Net, Tensor], Tensor], int, int]] = {
    # the formula, its channels, and how many operands are copied
    "two layers": (lambda net, x: torch.cat([net.a(x), net.depthwise(x)], 1), 8, 0),
    "input": (lambda net, x: torch.cat([net.a(x), x], 1), 8, 1),
    "used again": (lambda net, x: (lambda y: torch.cat([y, net.b(y).relu()], 1))(net.a(x)), 8, 0),
    "in two": (
        lambda net, x: (lambda y, z: torch.cat([y, z], 1) * torch.cat([z, y], 1))(net.a(x), net.b(x)),
        8,
        2,
    ),
    "twice": (lambda net, x: (lambda y: torch.cat([y, y], 1))(net.a(x)), 8, 2),
    "nested": (lambda net, x: torch.cat([net.a(x), torch.cat([net.b(x), net.c(x)], 1)], 1), 12, 0),
    "residual": (lambda net, x: torch.cat([net.a(x) + net.b(x), net.c(x)], 1), 8, 0),
    "pooled": (lambda net, x: torch.cat([F.max_pool2d(net.a(x), 2), F.avg_pool2d(net.b(x), 2)], 1), 8, 0),
    "resized": (
        lambda net, x: (lambda y: torch.cat([y, net.b(y)], 1))(F.interpolate(net.a(x), scale_factor=2.0)),
        8,
        0,
    ),
    "rows": (lambda net, x: torch.cat([net.a(x), net.b(x)], 2), 4, 2),
    "shuffled": (lambda net, x: shuffled(torch.cat([net.a(x), net.depthwise(x)], 1), 2), 8, 0),
    "shuffled in three": (lambda net, x: shuffled(torch.cat([net.a(x), net.b(x), x], 1), 3), 12, 1),
    "shuffled otherwise": (lambda net, x: shuffled(torch.cat([net.a(x), net.b(x)], 1), 4), 8, 3),
    "shuffled, used again": (
        lambda net, x: (lambda y: shuffled(y, 2) + y)(torch.cat([net.a(x), net.b(x)], 1)),
        8,
        3,
    ),
    "unequal parts": (lambda net, x: shuffled(torch.cat([net.a(x), net.b(x)[:, :2]], 1), 2), 6, 3),
    "shuffled units": (lambda net, x: net.units(x), 8, 2),
}


def lowered(name: str, shape: tuple[int, ...]) -> tuple[Program, np.ndarray, np.ndarray]:
    torch.manual_seed(0)
    formula, channels, _ = CASES[name]
    module, x = Net(formula, channels).eval(), torch.randn(shape)
    graph = PassManager([*parse_pipeline(PASSES), SelectKernels("avx2")])(import_module(module, (x,))).graph_module
    with torch.no_grad():
        return PlanMemory()(lower(graph, name, isa_named("avx2"))), x.numpy(), module(x).numpy()


@pytest.mark.parametrize("name", CASES)
def test_computes_what_the_module_does(name: str) -> None:
    program, x, wanted = lowered(name, (2, 4, 10, 12))
    np.testing.assert_allclose(interpret(program, [x], parts=3)[0], wanted, rtol=1e-4, atol=1e-5)
    assert sum(call.kernel.name.startswith("pcc_copy") for call in program.calls) == CASES[name][2]


@pytest.mark.parametrize("shape", [(1, 4, 16, 16), (1, 4, 6, 34)], ids=str)
@pytest.mark.parametrize("name", ["nested", "shuffled units"])
def test_as_machine_code(name: str, shape: tuple[int, ...]) -> None:
    """In threads, with planes that are whole cache lines and others; short rows are stored with junk behind them."""
    program, x, wanted = lowered(name, shape)
    (got,) = run_native(program, [x], target_named("x86_64-linux", "x86-64-v3"), parts=2)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
