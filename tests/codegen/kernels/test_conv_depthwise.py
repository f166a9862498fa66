"""Depthwise convolution against float64 PyTorch over odd shapes."""

import re

import numpy as np
import pytest
import torch

from pcc.codegen.family import family_named
from pcc.codegen.isa import isa_named
from pcc.codegen.kernels.conv_depthwise import ConvDepthwise
from pcc.codegen.kernels.copy import emit_copy
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.layers import Conv2d, ConvGeometry, Copy
from pcc.codegen.program import ProgramBuilder
from pcc.ir.activation import IDENTITY, Activation
from pcc.target import Target

from .support import ALL_TARGETS, X86_TARGETS, assembly, check, emit_by, external_calls, machine_of, rng

CASES = [
    # shape, multiplier, kernel, stride, padding (top, left, bottom, right), dilation
    ((1, 3, 7, 7), 1, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    ((2, 17, 13, 13), 1, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    ((1, 2, 30, 33), 1, (5, 5), (1, 1), (2, 2, 2, 2), (1, 1)),
    ((2, 3, 15, 20), 1, (5, 5), (2, 2), (1, 2, 2, 1), (1, 1)),
    ((1, 3, 12, 12), 2, (3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
    ((1, 2, 14, 14), 1, (3, 3), (2, 2), (2, 2, 2, 2), (2, 2)),
    ((1, 2, 17, 19), 1, (3, 3), (3, 3), (0, 3, 2, 1), (1, 1)),
    ((2, 3, 9, 40), 3, (2, 7), (1, 2), (0, 3, 1, 3), (1, 1)),
    ((1, 5, 9, 1), 1, (3, 1), (1, 1), (1, 0, 1, 0), (1, 1)),
    ((1, 4, 14, 14), 1, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    ((1, 4, 13, 3), 2, (4, 3), (2, 1), (1, 1, 1, 1), (1, 1)),
    ((1, 2, 9, 70), 1, (3, 3), (1, 1), (0, 0, 0, 0), (1, 1)),
    ((2, 3, 23, 45), 1, (5, 5), (2, 2), (2, 2, 2, 2), (1, 1)),
    ((1, 3, 13, 33), 2, (3, 3), (2, 1), (1, 1, 1, 1), (2, 3)),
    ((1, 2, 5, 7), 1, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
]


def depthwise(
    shape,
    multiplier,
    kernel,
    stride,
    padding,
    dilation,
    *,
    residual: bool = False,
    activation: Activation = IDENTITY,
    planes: bool = False,
    family: str = "conv-depthwise",
) -> None:
    """``planes``: into planes of whole cache lines, of which nothing but the outputs is looked at."""
    random = rng()
    geometry = ConvGeometry(kernel, stride, padding, dilation)
    channels, filters = shape[1], shape[1] * multiplier
    out = (shape[0], filters, *geometry.output_size(*shape[2:]))
    x, addend = random.standard_normal(shape, np.float32), random.standard_normal(out, np.float32)
    weight, bias = (
        random.standard_normal((filters, 1, *kernel), np.float32),
        random.standard_normal(filters, np.float32),
    )

    def build(b: ProgramBuilder) -> None:
        inputs, y = (b.input("x", shape), b.input("r", out)), (b.planes if planes else b.tensor)("y", out)
        layer = Conv2d(
            "conv", inputs[0], y, weight, bias, geometry, channels, inputs[1] if residual else None, activation
        )
        emit_by(family, layer, b)
        outside = b.tensor("outside", out)
        emit_copy(Copy("out", y, outside), b)
        b.output("y", outside)

    top, left, bottom, right = padding
    padded = torch.nn.functional.pad(torch.from_numpy(x).double(), (left, right, top, bottom))
    want = torch.nn.functional.conv2d(
        padded, torch.from_numpy(weight).double(), torch.from_numpy(bias).double(), stride, 0, dilation, channels
    )
    check(build, [x, addend], [activation(want + torch.from_numpy(addend).double() if residual else want)])


@pytest.mark.parametrize("planes", [False, True], ids=["tensor", "planes"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_pytorch(case, planes) -> None:
    depthwise(*case, planes=planes)


DIRECT_CASES = [
    ((2, 3, 7, 7), 1, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    ((1, 4, 14, 14), 1, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    ((2, 17, 13, 13), 1, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    ((1, 3, 14, 14), 2, (3, 3), (2, 2), (0, 0, 1, 1), (1, 1)),
    ((1, 2, 28, 28), 1, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    ((1, 2, 30, 33), 1, (5, 5), (1, 1), (2, 2, 2, 2), (1, 1)),
    ((2, 3, 23, 45), 1, (5, 5), (2, 2), (2, 2, 2, 2), (1, 1)),
    ((1, 3, 18, 40), 2, (3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
    ((1, 2, 9, 70), 1, (3, 3), (1, 1), (0, 0, 0, 0), (1, 1)),
    ((1, 3, 13, 37), 2, (3, 3), (3, 1), (1, 3, 2, 2), (2, 3)),
    ((1, 2, 2, 50), 1, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    ((1, 2, 3, 33), 1, (5, 5), (1, 2), (4, 4, 4, 4), (1, 1)),
    ((2, 5, 10, 10), 1, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    ((1, 3, 5, 5), 2, (5, 5), (1, 1), (2, 2, 2, 2), (1, 1)),
    ((1, 3, 4, 6), 1, (3, 3), (1, 1), (5, 5, 5, 5), (5, 5)),
    ((1, 2, 60, 21), 1, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    ((1, 2, 40, 40), 1, (3, 3), (1, 1), (1, 1, 29, 29), (1, 1)),
]


def test_much_padding_at_the_right_is_beyond_what_may_be_read() -> None:
    b = ProgramBuilder("test", isa_named(X86_TARGETS[0].isa))
    layers = [
        Conv2d(
            "conv",
            b.input(f"x{right}", (1, 8, 100, 100)),
            b.planes(f"y{right}", (1, 8, 100, 99 + right)),
            np.ones((8, 1, 3, 3), np.float32),
            np.zeros(8, np.float32),
            ConvGeometry((3, 3), (1, 1), (1, 1, 1, right)),
            8,
        )
        for right in (1, 128)
    ]
    usual, far = (family_named("conv-depthwise-direct").candidates(layer, machine_of(b.isa)) for layer in layers)
    assert not isinstance(usual, str)
    assert far == "the window reaches too far outside of the rows"


@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize("case", DIRECT_CASES, ids=str)
def test_direct_agrees_with_pytorch(case, residual) -> None:
    activation = Activation("clip", (0.0, 6.0)) if residual else IDENTITY
    depthwise(*case, residual=residual, activation=activation, planes=True, family="conv-depthwise-direct")


@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[7], CASES[10]], ids=str)
def test_epilogue(case) -> None:
    for planes in (False, True):
        depthwise(*case, residual=True, activation=Activation("clip", (0.0, 6.0)), planes=planes)


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
def test_taps_are_unrolled_without_calls(target: Target) -> None:
    window: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] = (3, 3), (1, 1), (1, 1)
    for kernel, taps in (
        (ConvDepthwise(window, Epilogue(), "wide", 4, 1), 36),
        (ConvDepthwise(window, Epilogue(), "narrow", 4, 1), 36),
        (ConvDepthwise(window, Epilogue(), "flat"), 9),
        (ConvDepthwise(((3, 3), (2, 2), (1, 1)), Epilogue(), "rows", 1, 2), 9),
        (ConvDepthwise(None, Epilogue()), 1),
    ):
        text = assembly(kernel, target)
        assert external_calls(text) == set()
        assert len(re.findall(r"\b(?:vfmadd\w+|fmla|fmadd)\b", text)) >= taps
