"""Gathering by constant and computed indices, weighted or not, against float64 PyTorch."""

import numpy as np
import pytest
import torch

from pcc.codegen.kernels.gather import GatherRows, emit_gather
from pcc.codegen.layers import Gather
from pcc.codegen.program import ProgramBuilder
from pcc.ir.ops import GATHER
from pcc.target import Target

from .support import ALL_TARGETS, assembly, check, external_calls, rng


@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize("taps", [0, 1, 4])
@pytest.mark.parametrize(
    ("shape", "tables", "places"),
    [((2, 3, 7, 1), 1, 19), ((2, 3, 7, 1), 2, 40), ((1, 2, 9, 13), 1, 5), ((3, 1, 4, 37), 3, 3), ((1, 1, 1, 1), 1, 1)],
)
def test_every_form(shape: tuple[int, ...], tables: int, places: int, taps: int, computed: bool) -> None:
    """``taps`` 0 is the form without weights."""
    random = rng()
    x = random.standard_normal(shape, np.float32)
    index = random.integers(0, shape[2], (tables, max(taps, 1), places)).astype(np.float32)
    weight = random.standard_normal(index.shape, np.float32) if taps else None
    expected = GATHER(
        torch.from_numpy(x).double(),
        torch.from_numpy(index),
        None if weight is None else torch.from_numpy(weight).double(),
    )

    def build(b: ProgramBuilder) -> None:
        y = b.tensor("y", tuple(expected.shape))
        source = b.input("x", shape)
        table = b.input("index", index.shape) if computed else b.constant("index", index.astype(np.int32))
        emit_gather(Gather("gather", source, table, None if weight is None else b.constant("weight", weight), y), b)
        b.output("y", y)

    check(build, [x, index] if computed else [x], [expected])


def test_an_index_out_of_range_reads_the_nearest_element_and_nan_the_first() -> None:
    x = np.arange(5, dtype=np.float32).reshape(1, 1, 5, 1)
    index = np.array([[[-1.0, 7.0, float("nan"), 3e38, -3e38, 4.0, float("inf"), 2.0, -float("inf")]]], np.float32)
    expected = torch.tensor([0.0, 4, 0, 4, 0, 4, 4, 2, 0]).reshape(1, 1, 9, 1)

    def build(b: ProgramBuilder) -> None:
        y = b.tensor("y", (1, 1, 9, 1))
        emit_gather(Gather("gather", b.input("x", x.shape), b.input("index", index.shape), None, y), b)
        b.output("y", y)

    check(build, [x, index], [expected])


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
def test_code_calls_nothing(target: Target) -> None:
    for kernel in (
        GatherRows(computed, weighted, runs)
        for computed in (False, True)
        for weighted in (False, True)
        for runs in (False, True)
    ):
        assert external_calls(assembly(kernel, target)) == set()
