"""Pooling against float64 PyTorch: every geometry, ceil mode, padding that counts or not."""

import re
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pcc.codegen.interpret import interpret
from pcc.codegen.isa import isa_named
from pcc.codegen.kernels.copy import emit_copy
from pcc.codegen.kernels.pool import PoolPlane, PoolWindow, emit_pool
from pcc.codegen.kernels.pool_max import PoolMax
from pcc.codegen.layers import ConvGeometry, Copy, Pool2d
from pcc.codegen.native import run_native
from pcc.codegen.program import ProgramBuilder
from pcc.dtype import FLOAT32
from pcc.target import Target

from .support import ALL_TARGETS, X86_TARGETS, assembly, check, external_calls, padded_view, rng


def check_pool(
    shape: tuple[int, ...],
    mode: str,
    geometry: ConvGeometry,
    expected: torch.Tensor,
    x: np.ndarray,
    include: bool = True,
) -> None:
    def build(b: ProgramBuilder) -> None:
        y = b.tensor("y", tuple(expected.shape))
        emit_pool(Pool2d("pool", b.input("x", shape), y, mode, geometry, include), b)
        b.output("y", y)

    check(build, [x], [expected], rtol=1e-6)


CASES = [  # kernel, stride, padding, dilation, ceil mode, height, width
    (2, 2, 0, 1, False, 8, 70),
    (2, 2, 0, 1, True, 7, 13),
    (3, 2, 1, 1, False, 13, 37),
    (3, 2, 0, 1, True, 14, 14),
    (3, 1, 1, 1, False, 7, 7),
    (3, 3, 1, 1, True, 11, 20),
    ((3, 5), (2, 1), (1, 2), 1, False, 9, 7),
    (2, 1, 1, 1, False, 3, 1),
    (5, 4, 2, 1, True, 23, 31),
    (3, 2, 0, 1, True, 34, 36),
    ((2, 3), (1, 2), (1, 1), 1, True, 9, 40),
    ((3, 2), (3, 1), (1, 0), 1, False, 11, 18),
    ((1, 40), (1, 40), 0, 1, False, 5, 120),
    ((2, 20), (1, 3), (0, 7), 1, False, 5, 33),
    ((2, 17), (1, 1), (1, 8), 1, False, 4, 40),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_max(case: tuple[Any, ...]) -> None:
    kernel, stride, padding, dilation, ceil, height, width = case
    x = rng().standard_normal((2, 3, height, width), np.float32)
    expected = F.max_pool2d(torch.from_numpy(x).double(), kernel, stride, padding, dilation, ceil)
    check_pool(x.shape, "max", geometry_of(kernel, stride, padding, dilation), expected, x)


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_average(case: tuple[Any, ...], include: bool) -> None:
    kernel, stride, padding, dilation, ceil, height, width = case
    x = rng().standard_normal((2, 3, height, width), np.float32)
    expected = F.avg_pool2d(torch.from_numpy(x).double(), kernel, stride, padding, ceil, include)
    check_pool(x.shape, "avg", geometry_of(kernel, stride, padding, dilation), expected, x, include)


@pytest.mark.parametrize("case", [(3, 1, 2, 2), (2, 2, 0, 3), (3, 3, (3, 1, 0, 2), 2)], ids=str)
def test_dilated_and_uneven_maximum(case: tuple[Any, ...]) -> None:
    kernel, stride, padding, dilation = case
    geometry = geometry_of(kernel, stride, padding, dilation)
    top, left, bottom, right = geometry.padding
    x = rng().standard_normal((1, 17, 11, 19), np.float32)
    padded = F.pad(torch.from_numpy(x).double(), (left, right, top, bottom), value=-torch.inf)
    check_pool(x.shape, "max", geometry, F.max_pool2d(padded, kernel, stride, 0, dilation), x)


@pytest.mark.parametrize("mode", ["max", "avg", "sum"])
@pytest.mark.parametrize("shape", [(2, 17, 7, 7), (1, 3, 1, 1), (1, 5, 13, 6), (3, 1, 2, 40)], ids=str)
def test_whole_planes(shape: tuple[int, ...], mode: str) -> None:
    x = rng().standard_normal(shape, np.float32)
    values = torch.from_numpy(x).double()
    expected = {"max": values.amax, "avg": values.mean, "sum": values.sum}[mode]((2, 3), keepdim=True)
    check_pool(shape, mode, ConvGeometry((shape[2], shape[3])), expected, x)


@pytest.mark.parametrize("include", [True, False])
def test_uneven_average(include: bool) -> None:
    """Padding (top 1, left 0, bottom 2, right 1), of which every element counts or none."""
    x = rng().standard_normal((2, 5, 9, 11), np.float32)
    padded, ones = (
        F.pad(values, (0, 1, 1, 2)) for values in (torch.from_numpy(x).double(), torch.ones(1, 1, 9, 11).double())
    )
    expected = F.avg_pool2d(padded, 3, 2)
    if not include:
        expected = expected / F.avg_pool2d(ones, 3, 2)
    check_pool(x.shape, "avg", geometry_of(3, 2, (1, 0, 2, 1), 1), expected, x, include)


def test_strided_views() -> None:
    """From the middle of larger planes into the middle of larger planes, by window and whole."""
    x = rng().standard_normal((2, 5, 7, 9), np.float32)
    values = torch.from_numpy(x).double()

    def build(b: ProgramBuilder) -> None:
        source = padded_view(b, "source", x.shape)
        emit_copy(Copy("in", b.input("x", x.shape), source), b)
        for name, shape, geometry in (
            ("window", (2, 5, 4, 5), geometry_of(3, 2, 1, 1)),
            ("plane", (2, 5, 1, 1), ConvGeometry((7, 9))),
        ):
            target, y = padded_view(b, f"{name}.strided", shape), b.tensor(name, shape)
            emit_pool(Pool2d(name, source, target, "avg", geometry), b)
            emit_copy(Copy("out", target, y), b)
            b.output(name, y)

    check(build, [x], [F.avg_pool2d(values, 3, 2, 1), values.mean((2, 3), keepdim=True)], rtol=1e-6)


def geometry_of(
    kernel: int | tuple[int, int], stride: int | tuple[int, int], padding: int | tuple[int, ...], dilation: int
) -> ConvGeometry:
    def pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
        return (value, value) if isinstance(value, int) else value

    around = pair(padding)
    return ConvGeometry(pair(kernel), pair(stride), around if len(around) == 4 else around * 2, pair(dilation))  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
def test_code_is_vectors_without_calls(target: Target) -> None:
    text = assembly(PoolWindow("max", 3, 2, 1), target)
    wide = [
        line
        for line in text.splitlines()
        if ("vmaxps" in line and ("%zmm" in line or "%ymm" in line)) or "fmax\tv" in line
    ]
    assert len(wide) >= 3
    lanes = isa_named(target.isa).lanes(FLOAT32)
    in_place = PoolMax((3, 3), 2, 1, lanes, 4)
    for kernel in (
        in_place,
        PoolWindow("max", 3, 2, 1),
        PoolWindow("avg", 3, 3, 1),
        PoolPlane("max"),
        PoolPlane("avg"),
    ):
        assert external_calls(assembly(kernel, target)) == set()


@pytest.mark.parametrize("value", [float("nan"), -float("nan")])
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (3, 1), (13, 1), (4, 4)])
def test_a_maximum_keeps_nan_wherever_it_is_as_pytorch_does(kernel: int, stride: int, value: float) -> None:
    """In machine code and in the reference, for windows and whole planes, before and after numbers and infinities."""
    x = rng().standard_normal((1, 40, 13, 13), np.float32)
    for place, plane in enumerate(x[0]):
        plane[:2] = np.inf if place % 3 else -np.inf
        plane.flat[place * 4 :: 50] = value
    expected = F.max_pool2d(torch.from_numpy(x), kernel, stride).numpy()
    assert np.isnan(expected).any()
    for target in X86_TARGETS:
        b = ProgramBuilder("test", isa_named(target.isa))
        y = b.tensor("y", expected.shape)
        emit_pool(Pool2d("pool", b.input("x", x.shape), y, "max", geometry_of(kernel, stride, 0, 1)), b)
        b.output("y", y)
        program = b.build()
        for (got,) in (run_native(program, [x], target), interpret(program, [x])):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
def test_keeping_nan_is_a_comparison_and_a_blend_on_x86_and_free_on_arm(target: Target) -> None:
    text = assembly(PoolPlane("max"), target)
    if target.isa == "neon":
        assert "fcm" not in text
    else:
        assert len(re.findall(r"vcmpunordps", text)) == len(re.findall(r"vmaxps", text)) > 0
