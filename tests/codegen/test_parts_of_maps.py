"""Layers that read a part of a map where it lies, or write into every second plane: rows do not follow each other, or
planes lie apart."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pcc
from pcc.codegen.interpret import interpret
from pcc.codegen.program import Program
from pcc.passes.pipeline import DEFAULT_PIPELINE
from pcc.planner import plan_stage
from pcc.target import target_named

PROCESSORS = [
    ("x86_64-linux", "x86-64-v3"),
    ("x86_64-linux", "x86-64-v4"),
    ("aarch64-linux", "cortex-a53"),
    ("aarch64-linux", "cortex-a76"),
]


class Net(nn.Module):
    def __init__(self, layer: nn.Module, function: Callable[..., Tensor], kept: float = 1.0) -> None:
        super().__init__()
        self.layer, self.function = layer, function
        with torch.no_grad():
            for weight in (weight for weight in layer.parameters() if weight.dim() == 4):
                weight.mul_(torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) < kept)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(self.layer, *inputs)


def shuffled(layer: nn.Module, x: Tensor) -> Tensor:
    both = torch.cat([layer(x), layer(x.neg())], 1)
    count, channels, height, width = both.shape
    return both.view(count, 2, channels // 2, height, width).transpose(1, 2).reshape(both.shape) + 1


def pointwise(channels: int, filters: int | None = None) -> nn.Conv2d:
    return nn.Conv2d(channels, filters or channels, 1)


def depthwise(channels: int, kernel: int, padding: int = 0) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel, groups=channels, padding=padding)


def cases() -> dict[str, tuple[nn.Module, list[tuple[int, ...]]]]:
    torch.manual_seed(0)
    return {
        "sparse": (Net(pointwise(128), lambda m, x: m(x[:, :, 1:-1, 1:-1]), 0.3), [(1, 128, 16, 16)]),
        "sparse, small": (Net(pointwise(128), lambda m, x: m(x[:, :, 1:-1, 1:-1]), 0.3), [(2, 128, 9, 9)]),
        "sparse, rows": (Net(pointwise(64), lambda m, x: m(x[:, :, ::3]), 0.3), [(1, 64, 16, 16)]),
        "dense": (Net(pointwise(64, 40), lambda m, x: m(x[:, :, 1:8, 1:8])), [(1, 64, 9, 9)]),
        "dense, narrow": (Net(pointwise(64), lambda m, x: m(x[:, :, 1:4, 1:4])), [(1, 64, 16, 16)]),
        "dense, rows": (Net(pointwise(64), lambda m, x: m(x[:, :, ::2])), [(1, 64, 7, 7)]),
        "computed": (
            Net(pointwise(32), lambda m, x: m(m(x)[:, 3:, 2:5, 1:4].repeat(1, 2, 1, 1)[:, :32])),
            [(1, 32, 8, 8)],
        ),
        "residual": (
            Net(pointwise(64), lambda m, x, z: torch.relu(m(x) + z[:, :, 1:-1, 1:-1])),
            [(1, 64, 7, 7), (1, 64, 9, 9)],
        ),
        "sparse residual": (
            Net(pointwise(64), lambda m, x, z: torch.relu(m(x) + z[:, :, 1:-1, 1:-1]), 0.3),
            [(1, 64, 7, 7), (1, 64, 9, 9)],
        ),
        "window": (Net(nn.Conv2d(16, 24, 3), lambda m, x: m(x[:, :, 2:-1, 3:-2])), [(1, 16, 14, 15)]),
        "depthwise": (Net(depthwise(16, 3), lambda m, x: m(x[:, :, :, :9])), [(1, 16, 9, 600)]),
        "depthwise 7x7": (Net(depthwise(16, 7), lambda m, x: m(x[:, :, 1:, 4:16])), [(1, 16, 12, 300)]),
        "shuffle 7x7": (Net(depthwise(8, 3, 1), shuffled), [(1, 8, 7, 7)]),
        "shuffle 5x5": (Net(depthwise(8, 3, 1), shuffled), [(2, 8, 5, 5)]),
        "shuffle 14x14": (Net(depthwise(8, 3, 1), shuffled), [(1, 8, 14, 14)]),
        "shuffle, sparse": (Net(pointwise(64), shuffled, 0.3), [(1, 64, 7, 7)]),
    }


@pytest.mark.parametrize("name", cases())
@pytest.mark.parametrize(("target", "cpu"), PROCESSORS)
def test_planned(target: str, cpu: str, name: str) -> None:
    module, shapes = cases()[name]
    inputs = tuple(torch.randn(shape) for shape in shapes)
    program = plan_stage(
        module.eval(),
        inputs,
        name="net",
        target=target_named(target, cpu),
        pipeline=DEFAULT_PIPELINE,
        stage="program",
        machine_profile="built-in",
        tuning_records="none",
    )
    assert isinstance(program, Program)
    with torch.no_grad():
        wanted = module(*inputs).numpy()
    (found,) = interpret(program, [x.numpy() for x in inputs])
    np.testing.assert_allclose(found, wanted, atol=1e-5)


class All(nn.Module):
    def __init__(self, nets: list[nn.Module], counts: list[int]) -> None:
        super().__init__()
        self.nets, self.counts = nn.ModuleList(nets), counts

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        values = iter(inputs)
        return tuple(
            net(*(next(values) for _ in range(count))) for net, count in zip(self.nets, self.counts, strict=True)
        )


def test_run(tmp_path: Path) -> None:
    nets, shapes = zip(*cases().values(), strict=True)
    module = All(list(nets), [len(each) for each in shapes]).eval()
    inputs = tuple(torch.randn(shape) for each in shapes for shape in each)
    pcc.compile(module, inputs, out=tmp_path / "net", verify_each=False)
    with torch.no_grad():
        wanted = module(*inputs)
    for threads in (1, 2):
        found = pcc.load(tmp_path / "net", threads=threads)(*(x.numpy() for x in inputs))
        for name, value, expected in zip(cases(), found, wanted, strict=True):
            np.testing.assert_allclose(value, expected.numpy(), atol=1e-5, err_msg=name)
