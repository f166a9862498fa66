"""Softmax and log-softmax over every dimension, with values that would overflow without the shift."""

import numpy as np
import pytest
import torch

from pcc.codegen.kernels.softmax import SoftmaxColumns, SoftmaxRows, emit_softmax
from pcc.codegen.layers import Softmax
from pcc.codegen.program import ProgramBuilder
from pcc.target import Target

from .support import ALL_TARGETS, assembly, check, external_calls, rng


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    ("shape", "dim"),
    [
        ((2, 1000), 1),
        ((3, 1), 1),
        ((5, 13), 1),
        ((2, 21, 9, 7), 1),
        ((3, 17), 0),
        ((1, 2, 3, 70), -1),
        ((2, 4, 129), 1),
    ],
    ids=str,
)
def test_softmax(shape: tuple[int, ...], dim: int, log: bool) -> None:
    x = rng().uniform(-150, 150, shape).astype(np.float32)
    x.flat[0] = 1e4
    values = torch.from_numpy(x).double()

    def build(b: ProgramBuilder) -> None:
        y = b.tensor("y", shape)
        emit_softmax(Softmax("softmax", b.input("x", shape), y, dim, log), b)
        b.output("y", y)

    check(build, [x], [values.log_softmax(dim) if log else values.softmax(dim)], rtol=1e-6)


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
def test_objects_need_nothing(target: Target) -> None:
    for kernel in (SoftmaxRows(False), SoftmaxRows(True), SoftmaxColumns(False), SoftmaxColumns(True)):
        assert external_calls(assembly(kernel, target)) == set()
