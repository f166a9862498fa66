"""Lowering: whole small networks as programs, interpreted and run as machine code, against PyTorch."""

from collections.abc import Callable
from typing import Any

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
from pcc.codegen.print_program import print_program
from pcc.codegen.program import Program
from pcc.codegen.select_kernels import SelectKernels
from pcc.errors import PccError
from pcc.frontend.torch_module import import_module
from pcc.passes.manager import PassManager
from pcc.passes.pipeline import parse_pipeline
from pcc.target import target_named

GRAPH_PASSES = "decompose,canonicalize,fold-constants,fold-batchnorm,fuse-epilogues,reorder-kernels"


def conv_bn(inputs: int, outputs: int, kernel: int = 3, **options: Any) -> nn.Sequential:
    """A convolution and a batch-norm with statistics that matter."""
    norm = nn.BatchNorm2d(outputs)
    with torch.no_grad():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.normal_(0, 0.3)
        norm.running_var.uniform_(0.5, 2)
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(0, 0.2)
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, bias=False, **options), norm)


class Residual(nn.Module):
    """Stride, residual add, global pooling, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8, stride=2, padding=1)
        self.a = conv_bn(8, 8, padding=1)
        self.b = conv_bn(8, 8, padding=1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.b(F.relu(self.a(x))))
        return self.fc(x.mean((2, 3)))


class Branches(nn.Module):
    """Concat, pooling in ceil mode, groups, dilation, resize, two outputs of which one is used again."""

    def __init__(self) -> None:
        super().__init__()
        self.a = conv_bn(3, 6, padding=1)
        self.b = conv_bn(3, 4, kernel=1)
        self.c = conv_bn(10, 10, padding=2, dilation=2, groups=2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        joined = torch.cat([F.silu(self.a(x)), F.hardswish(self.b(x))], 1)
        small = F.max_pool2d(self.c(joined), 3, 2, ceil_mode=True)
        big = F.interpolate(small, size=x.shape[2:], mode="bilinear", align_corners=False)
        return {"big": big * torch.sigmoid(joined), "small": small}


class Shuffle(nn.Module):
    """Channel shuffle, slices, squeeze-and-excitation, depthwise, padding by hand, softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.a = conv_bn(4, 8, kernel=1)
        self.depthwise = conv_bn(8, 8, padding=1, groups=8, stride=2)
        self.squeeze = nn.Conv2d(8, 2, 1)
        self.excite = nn.Conv2d(2, 8, 1)
        self.head = nn.Conv2d(5, 7, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        x = F.relu6(self.depthwise(x))
        x = x * F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        kept, _ = x.split([5, 3], 1)
        x = self.head(F.pad(kept, (1, 0, 0, 2)))
        return F.softmax(x.flatten(2), -1)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": (Residual, (1, 3, 13, 11)),
    "residual_batch": (Residual, (3, 3, 8, 7)),
    "branches": (Branches, (1, 3, 10, 9)),
    "branches_batch": (Branches, (2, 3, 7, 13)),
    "shuffle": (Shuffle, (2, 4, 9, 7)),
}


def compiled(name: str, prune: str = "", isa: str = "avx2") -> tuple[Program, list[np.ndarray], list[np.ndarray]]:
    """The planned program of a network, an input, and the outputs of the graph it was lowered from."""
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    module, x = make().eval(), torch.randn(shape)
    graph = import_module(module, (x,))
    passes = parse_pipeline(GRAPH_PASSES.replace("fuse-epilogues", f"{prune}fuse-epilogues"))
    graph = PassManager([*passes, SelectKernels(isa)])(graph).graph_module
    with torch.no_grad():
        expected = graph(x)
        if not prune:
            result = module(x)
            for got, wanted in zip(expected, result.values() if isinstance(result, dict) else [result], strict=True):
                torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    return PlanMemory()(lower(graph, name, isa_named(isa))), [x.numpy()], [output.numpy() for output in expected]


@pytest.mark.parametrize("prune", ["", "prune-pattern,prune-connectivity{rate=2},"], ids=["dense", "pruned"])
@pytest.mark.parametrize("name", NETWORKS)
def test_program_computes_what_the_graph_does(name: str, prune: str) -> None:
    program, inputs, expected = compiled(name, prune)
    for parts in (1, 3):
        for got, wanted in zip(interpret(program, inputs, parts), expected, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    for got, wanted in zip(
        run_native(program, inputs, target_named("x86_64-linux", "x86-64-v3"), parts=2), expected, strict=True
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_program_text(golden: Callable[[str, str], None]) -> None:
    program, _, _ = compiled("residual", "prune-pattern,prune-connectivity{rate=2},")
    golden(print_program(program), "residual_program")


def test_a_model_that_returns_its_input_gets_a_copy() -> None:
    class Echo(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x[:, 1:]

    x = torch.randn(1, 3, 4, 5)
    graph = PassManager(parse_pipeline(GRAPH_PASSES))(import_module(Echo(), (x,))).graph_module
    program = PlanMemory()(lower(graph, "echo", isa_named("avx2")))
    whole, part = interpret(program, [x.numpy()])
    np.testing.assert_array_equal(whole, x.numpy())
    np.testing.assert_array_equal(part, x[:, 1:].numpy())


class TakesNothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, 3:] + 1


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (
            TakesNothing(),
            (1, 3, 4, 4),
            r"node \w+: the result of \S+ has the shape \(1, 0, 4, 4\), which holds no elements",
        ),
    ],
)
def test_what_holds_no_elements_is_refused(module: nn.Module, shape: tuple[int, ...], message: str) -> None:
    graph = PassManager(parse_pipeline("decompose,canonicalize"))(
        import_module(module, (torch.zeros(shape),))
    ).graph_module
    with pytest.raises(PccError, match=message):
        lower(graph, "net", isa_named("avx2"))
