"""Products of computed matrices against float64 PyTorch: odd sizes, batches, one side for all, strided views."""

import numpy as np
import pytest
import torch

from pcc.codegen.kernels.matmul import TILES, MatMulTile, emit_matmul
from pcc.codegen.layers import MatMul
from pcc.codegen.program import ProgramBuilder, View
from pcc.target import Target

from .support import ALL_TARGETS, LANES, assembly, check, external_calls, inner_loop, rng

SHAPES = [
    ((1, 1, 1), (1, 1, 1)),
    ((2, 7, 13), (2, 13, 5)),
    ((3, 49, 17), (1, 17, 70)),
    ((1, 5, 33), (4, 33, 64)),
    ((2, 64, 96), (2, 96, 200)),
    ((1, 300, 3), (1, 3, 1)),
]


@pytest.mark.parametrize(("left", "right"), SHAPES, ids=str)
def test_products(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    a, b = (rng(seed).standard_normal(shape, np.float32) for seed, shape in enumerate((left, right)))
    expected = torch.from_numpy(a).double() @ torch.from_numpy(b).double()

    def build(builder: ProgramBuilder) -> None:
        y = builder.tensor("y", tuple(expected.shape))
        emit_matmul(MatMul("product", builder.input("a", left), builder.input("b", right), y), builder)
        builder.output("y", y)

    check(build, [a, b], [expected])


def test_matrices_may_be_parts_of_larger_ones() -> None:
    a, b = rng(0).standard_normal((2, 9, 30), np.float32), rng(1).standard_normal((2, 27, 50), np.float32)
    expected = torch.from_numpy(a).double()[:, :, 3:] @ torch.from_numpy(b).double()[:, :, 5:26]

    def build(builder: ProgramBuilder) -> None:
        whole_a, whole_b = builder.input("a", a.shape), builder.input("b", b.shape)
        y = builder.tensor("y", tuple(expected.shape))
        left, right = (
            View(whole_a.buffer, (2, 9, 27), (270, 30, 1), 3),
            View(whole_b.buffer, (2, 27, 21), (1350, 50, 1), 5),
        )
        emit_matmul(MatMul("product", left, right, y), builder)
        builder.output("y", y)

    check(build, [a, b], [expected])


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
def test_code_is_multiply_adds_without_calls_or_spills(target: Target) -> None:
    lanes = LANES[target.isa]
    text = assembly(MatMulTile(*TILES[lanes], lanes), target)
    assert external_calls(text) == set()
    loop = inner_loop(text)
    assert loop.count("vfmadd") + loop.count("fmla") >= TILES[lanes][0] * TILES[lanes][1]
    assert "(%rsp)" not in loop
    assert "[sp" not in loop
