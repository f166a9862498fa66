"""Running sums, products, extremes and the k largest down columns, against PyTorch."""

import numpy as np
import pytest
import torch

from pcc.codegen.interpret import interpret
from pcc.codegen.isa import isa_named
from pcc.codegen.kernels.columns import ScanColumns, TopKColumns, emit_scan, emit_top_k
from pcc.codegen.native import run_native
from pcc.codegen.program import ProgramBuilder
from pcc.ir.ops import SCAN, TOP_K
from pcc.target import Target

from .support import ALL_TARGETS, X86_TARGETS, assembly, check, external_calls, rng

SHAPES = [(1, 1, 1), (3, 17, 1), (2, 5, 3), (1, 9, 70), (2, 33, 129)]


@pytest.mark.parametrize("mode", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scans(shape: tuple[int, ...], mode: str) -> None:
    x = rng().uniform(0.5, 1.5, shape).astype(np.float32)
    expected = SCAN(torch.from_numpy(x).double(), mode)

    def build(b: ProgramBuilder) -> None:
        y = b.tensor("y", shape)
        emit_scan(b, y, b.input("x", shape), mode)
        b.output("y", y)

    check(build, [x], [expected])


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("indices", [True, False])
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
def test_top_k(shape: tuple[int, ...], count: int, indices: bool, largest: bool) -> None:
    """Many elements are equal: the first of them comes first. Infinities are elements like others."""
    x = rng().integers(-3, 4, shape).astype(np.float32)
    x[x == 3] = np.inf
    x[x == -3] = -np.inf
    expected = TOP_K(torch.from_numpy(x).double(), count, largest, indices)

    def build(b: ProgramBuilder) -> None:
        y = b.tensor("y", tuple(expected.shape))
        emit_top_k(b, y, b.input("x", shape), y.shape[1], largest, indices)
        b.output("y", y)

    for program_inputs in ([np.nan_to_num(x, posinf=9, neginf=-9)], [x]):
        check_equal(build, program_inputs, TOP_K(torch.from_numpy(program_inputs[0]), count, largest, indices).numpy())


def check_equal(build, inputs, expected: np.ndarray) -> None:
    for target in X86_TARGETS:
        b = ProgramBuilder("test", isa_named(target.isa))
        build(b)
        program = b.build()
        for parts in (1, 3):
            np.testing.assert_array_equal(interpret(program, inputs, parts)[0], expected)
            np.testing.assert_array_equal(run_native(program, inputs, target, parts)[0], expected)


def test_nan_is_the_largest() -> None:
    x = np.array([1, np.nan, 3, -np.inf, np.nan, 2, 5, 4, 3], np.float32).reshape(1, 9, 1)
    for largest in (True, False):

        def build(b: ProgramBuilder, largest: bool = largest) -> None:
            y = b.tensor("y", (1, 9, 1))
            emit_top_k(b, y, b.input("x", x.shape), y.shape[1], largest, True)
            b.output("y", y)

        check_equal(build, [x], TOP_K(torch.from_numpy(x), 9, largest, True).numpy())


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
def test_code_calls_nothing(target: Target) -> None:
    for kernel in (ScanColumns("sum"), ScanColumns("max"), TopKColumns(True, True), TopKColumns(False, False)):
        assert external_calls(assembly(kernel, target)) == set()
