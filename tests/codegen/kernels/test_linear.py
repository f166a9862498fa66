"""Linear layers against float64 PyTorch."""

import numpy as np
import pytest
import torch

from pcc.codegen.layers import Linear
from pcc.codegen.program import ProgramBuilder, View
from pcc.ir.activation import IDENTITY, Activation

from .support import check, emit_by, rng

CASES = [
    (1, 1, 1),
    (1, 17, 10),
    (1, 64, 128),
    (1, 33, 1000),
    (2, 7, 65),
    (3, 128, 64),
    (4, 9, 24),
    (5, 40, 131),
    (13, 5, 3),
]
"""(N, K, M)."""


def linear(
    n: int, depth: int, outputs: int, *, residual: bool = False, activation: Activation = IDENTITY, apart: int = 0
) -> None:
    random = rng()
    x, addend = random.standard_normal((n, depth + apart), np.float32), random.standard_normal((n, outputs), np.float32)
    weight, bias = random.standard_normal((outputs, depth), np.float32), random.standard_normal(outputs, np.float32)

    def build(b: ProgramBuilder) -> None:
        whole, r, y = b.input("x", x.shape), b.input("r", addend.shape), b.tensor("y", (n, outputs))
        view = View(whole.buffer, (n, depth), whole.strides, apart)
        layer = Linear("fc", view, y, weight, bias, r if residual else None, activation)
        emit_by("linear", layer, b)
        b.output("y", y)

    want = (
        torch.from_numpy(x[:, apart:]).double() @ torch.from_numpy(weight).double().T + torch.from_numpy(bias).double()
    )
    check(build, [x, addend], [activation(want + torch.from_numpy(addend).double() if residual else want)])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_pytorch(case: tuple[int, int, int]) -> None:
    linear(*case)


@pytest.mark.parametrize("case", CASES[3:6], ids=str)
def test_epilogue(case: tuple[int, int, int]) -> None:
    linear(*case, residual=True, activation=Activation("relu"))


def test_rows_that_lie_apart() -> None:
    linear(5, 19, 40, apart=3)
