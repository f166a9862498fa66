"""Every kernel family's arm64 code, emulated, against float64 PyTorch over odd shapes: one program a family, with an
output for each case."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pcc.codegen.family import families, family_named
from pcc.codegen.isa import isa_named
from pcc.codegen.kernels.conv_dense import FILTERS, POSITIONS
from pcc.codegen.kernels.elementwise import emit_elementwise
from pcc.codegen.layers import (
    Conv2d,
    Convert,
    ConvGeometry,
    Copy,
    Elementwise,
    Fill,
    Gather,
    Linear,
    MatMul,
    Pool2d,
    Resize2d,
    Softmax,
)
from pcc.codegen.program import Program, ProgramBuilder, View, contiguous_strides
from pcc.dtype import FLOAT16, FLOAT32, INT64, REALS, DType
from pcc.ir.activation import Activation
from pcc.ir.expression import evaluate, parse
from pcc.ir.ops import GATHER, NMS, SCAN, SCATTER, TOP_K
from pcc.sparsity import csr, fkw, joint, pattern
from tests.arm64 import FP16_CPUS, arm64, run_emulated
from tests.codegen.kernels.support import emit_by

BOUNDS = {FLOAT32: 1e-5, FLOAT16: 10 * 2.0**-11}
"""Relative to the largest output, by what a kernel computes in: sums of up to 153 products; each addition in fp16
rounds by up to 2^-11 of what is there."""


class Cases:
    """A program being built, with its inputs' values and what its outputs must be."""

    def __init__(self, dtype: DType = FLOAT32) -> None:
        self.dtype = dtype
        self.builder = ProgramBuilder("cases", isa_named("neon" if dtype == FLOAT32 else "neon-fp16"))
        self.inputs: list[np.ndarray] = []
        self.expected: list[tuple[str, torch.Tensor]] = []
        self.rng = np.random.default_rng(0)

    def values(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(self.dtype.numpy)

    def input(self, *shape: int) -> tuple[View, torch.Tensor]:
        self.inputs.append(self.values(*shape))
        return self.builder.input(f"in{len(self.inputs)}", shape, self.dtype), torch.from_numpy(
            self.inputs[-1]
        ).double()

    def output(self, case: object, expected: torch.Tensor) -> View:
        view = self.builder.tensor(f"out{len(self.expected)}", tuple(expected.shape), self.dtype)
        self.builder.output(view.buffer, view)
        self.expected.append((str(case), expected))
        return view

    def check(self) -> Program:
        program = self.builder.build()
        emulated = (
            run_emulated(program, self.inputs)
            if self.dtype == FLOAT32
            else run_emulated(program, self.inputs, FP16_CPUS, cpu=FP16_CPUS[0])
        )
        for cpu, outputs in emulated.items():
            for (case, expected), output in zip(self.expected, outputs, strict=True):
                error = (torch.from_numpy(output).double() - expected).abs().max() / expected.abs().max().clamp(
                    min=1e-6
                )
                assert error <= BOUNDS[self.dtype], f"{cpu}: {case}: relative error {error:g}"
        return program


@pytest.fixture(params=REALS, ids=str)
def cases(request: pytest.FixtureRequest) -> Cases:
    """Cases of each type that kernels compute in."""
    return Cases(request.param)


GEOMETRIES = [
    # kernel, stride, padding (top, left, bottom, right), dilation
    ConvGeometry((3, 3), (1, 1), (1, 1, 1, 1)),
    ConvGeometry((3, 3), (2, 2), (1, 1, 1, 1)),
    ConvGeometry((3, 3), (3, 3), (0, 2, 3, 1)),
    ConvGeometry((3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
    ConvGeometry((1, 1)),
    ConvGeometry((1, 1), (2, 2)),
    ConvGeometry((5, 3), (2, 1), (3, 0, 1, 2)),
]
SIZES = [(1, 3, 5, 1), (2, 17, 9, 7), (1, 1, 13, 13)]
"""Inputs (n, c, h, w); a geometry that does not fit one is left out of it."""


def _convolve(
    cases: Cases,
    family: str,
    size,
    geometry,
    weight,
    packed,
    groups=1,
    residual=False,
    activation="none",
    number=None,
    whole_lines=False,
):
    """One convolution, checked with bias and, if asked for, residual and activation; by the family's cheapest schedule,
    or the one of that number; into planes of ``whole_lines`` if asked for."""
    top, left, bottom, right = geometry.padding
    padded_size = size[2] + top + bottom, size[3] + left + right
    if any(have < d * (k - 1) + 1 for have, d, k in zip(padded_size, geometry.dilation, geometry.window, strict=True)):
        return
    x, x64 = cases.input(*size)
    bias = cases.values(len(weight))
    y64 = F.conv2d(
        F.pad(x64, (left, right, top, bottom)),
        torch.from_numpy(weight).double(),
        torch.from_numpy(bias).double(),
        geometry.stride,
        dilation=geometry.dilation,
        groups=groups,
    )
    extra, extra64 = cases.input(*y64.shape) if residual else (None, torch.zeros(()))
    function = Activation.parse(activation)
    parameter = cases.values(len(weight)).astype(np.float32) if function.is_parametric else None
    of_channels = None if parameter is None else torch.from_numpy(parameter).double()[:, None, None]
    y = cases.output((size, geometry, groups, activation), function(y64 + extra64, of_channels))
    name = f"conv{len(cases.expected)}"
    target = cases.builder.planes(name, y.shape, cases.dtype) if whole_lines else y
    layer = Conv2d(name, x, target, packed, bias, geometry, groups, extra, function, parameter)
    cases.builder.layer = layer.name
    emit_by(family, layer, cases.builder, number)
    if whole_lines:
        emit_elementwise(Elementwise(f"{name}.copy", (target,), y, "x0"), cases.builder)


@arm64
def test_conv_dense(cases: Cases) -> None:
    for size, geometry in product(SIZES, GEOMETRIES):
        weight = cases.values(7, size[1], *geometry.window)
        _convolve(cases, "conv-dense", size, geometry, weight, weight)
    weight = cases.values(12, 4, 3, 3)
    _convolve(
        cases, "conv-dense", (1, 8, 10, 13), GEOMETRIES[0], weight, weight, groups=2, residual=True, activation="relu"
    )
    weight = cases.values(33, 40, 1, 1)
    for number in range(len(POSITIONS[16]) + len(FILTERS[16])):
        _convolve(
            cases,
            "conv-dense",
            (1, 40, 14, 14),
            GEOMETRIES[4],
            weight,
            weight,
            residual=True,
            activation="clip(0,6)",
            number=number,
        )
    cases.check()


@arm64
@pytest.mark.parametrize(
    ("residual", "activation"),
    [
        (True, "prelu"),
        pytest.param(False, "prelu", marks=pytest.mark.slow),
        pytest.param(True, "swish", marks=pytest.mark.slow),
    ],
)
def test_activations_with_a_parameter_for_each_channel(cases: Cases, residual: bool, activation: str) -> None:
    """Every family but those that pool, which store by the same code."""
    for name in (name for name in families() if name.startswith("conv") and not name.endswith("pool")):
        family = family_named(name)
        if cases.dtype not in family.dtypes:
            continue
        groups = 6 if "depthwise" in name else 1
        geometry = GEOMETRIES[4] if "pointwise" in name else GEOMETRIES[0]
        weight = cases.values(9 if groups == 1 else 12, 6 // groups, *geometry.window)
        if family.format != "dense":
            weight = joint.project(weight, None, 2.0).weight
        packed = weight if family.format == "dense" else fkw.pack(weight)
        _convolve(cases, name, (1, 6, 9, 13), geometry, weight, packed, groups, residual, activation)
    cases.check()


@arm64
@pytest.mark.parametrize("share", [1, 2])
def test_conv_sparse(cases: Cases, share: int) -> None:
    for size, geometry in product([(1, 4, 9, 1), (2, 17, 9, 7), (1, 6, 13, 13)], GEOMETRIES[:4]):
        cut = joint.project(cases.values(8, size[1], 3, 3), pattern.DESIGNED, 2.0, share=share)
        packed = fkw.pack(cut.weight, 1, pattern.DESIGNED, share, cut.order)
        for family in (
            ("conv-sparse-scatter", "conv-sparse-gather") if cases.dtype == FLOAT32 else ("conv-sparse-gather",)
        ):
            _convolve(
                cases, family, size, geometry, cut.weight, packed, residual=geometry.stride == (1, 1), activation="relu"
            )
    cases.check()


@arm64
def test_conv_sparse_pointwise(cases: Cases) -> None:
    for size, geometry in product([(2, 17, 9, 7), (1, 24, 13, 13)], GEOMETRIES[4:6]):
        cut = joint.project(cases.values(9, size[1], 1, 1), None, 3.0)
        packed = fkw.pack(cut.weight)
        _convolve(
            cases,
            "conv-sparse-pointwise",
            size,
            geometry,
            cut.weight,
            packed,
            residual=geometry.stride == (1, 1),
            activation="relu",
        )
    cases.check()


@arm64
def test_conv_depthwise(cases: Cases) -> None:
    for size, geometry in product([(1, 3, 5, 1), (2, 17, 9, 7), (1, 8, 14, 14)], [*GEOMETRIES[:4], GEOMETRIES[6]]):
        weight = cases.values(size[1], 1, *geometry.window)
        _convolve(cases, "conv-depthwise", size, geometry, weight, weight, groups=size[1], activation="clip(0,6)")
    cases.check()


@arm64
def test_conv_depthwise_in_rows_of_less_than_a_vector(cases: Cases) -> None:
    """Rows are stored with junk behind them, which the next row replaces: in this order."""
    for size, geometry in (
        ((1, 4, 30, 11), ConvGeometry((5, 5), (4, 4), (2, 2, 2, 2))),
        ((2, 3, 10, 3), ConvGeometry((3, 3), (1, 1), (1, 1, 1, 1))),
        ((1, 3, 33, 10), ConvGeometry((3, 3), (3, 3), (1, 1, 1, 1))),
    ):
        weight = cases.values(size[1], 1, *geometry.window)
        for number in range(2):
            options: dict[str, Any] = {"groups": size[1], "activation": "relu", "number": number, "whole_lines": True}
            _convolve(cases, "conv-depthwise", size, geometry, weight, weight, **options)
    cases.check()


@arm64
def test_conv_depthwise_direct(cases: Cases) -> None:
    for size, geometry in product([(2, 17, 9, 19), (1, 8, 14, 16)], [*GEOMETRIES[:2], GEOMETRIES[3]]):
        weight = cases.values(size[1], 1, *geometry.window)
        _convolve(
            cases,
            "conv-depthwise-direct",
            size,
            geometry,
            weight,
            weight,
            groups=size[1],
            residual=True,
            activation="clip(0,6)",
        )
    weight = cases.values(6, 1, 5, 5)
    _convolve(
        cases,
        "conv-depthwise-direct",
        (1, 6, 13, 21),
        ConvGeometry((5, 5), (2, 2), (2, 2, 2, 2)),
        weight,
        weight,
        groups=6,
    )
    cases.check()


@arm64
def test_linear(cases: Cases) -> None:
    for n, k, m, residual, activation in (
        (1, 1, 1, False, "none"),
        (1, 37, 10, True, "relu"),
        (3, 64, 33, False, "silu"),
        (2, 130, 1000, False, "none"),
    ):
        x, x64 = cases.input(n, k)
        weight, bias = cases.values(m, k), cases.values(m)
        extra, extra64 = cases.input(n, m) if residual else (None, torch.zeros(()))
        function = Activation.parse(activation)
        y64 = function(F.linear(x64, torch.from_numpy(weight).double(), torch.from_numpy(bias).double()) + extra64)
        emit_by(
            "linear", Linear(f"fc{m}", x, cases.output((n, k, m), y64), weight, bias, extra, function), cases.builder
        )
    cases.check()


@arm64
def test_linear_sparse(cases: Cases) -> None:
    for n, k, m, activation in ((1, 300, 41, "relu"), (3, 64, 33, "none")):
        x, x64 = cases.input(n, k)
        weight, bias = cases.values(m, k) * (cases.rng.random((m, k)) < 0.1), cases.values(m)
        packed = csr.pack(weight.astype(np.float32))
        assert isinstance(packed, csr.Csr)
        stored = replace(packed, weight=packed.weight.astype(cases.dtype.numpy))
        function = Activation.parse(activation)
        y64 = function(F.linear(x64, torch.from_numpy(weight).double(), torch.from_numpy(bias).double()))
        emit_by(
            "linear-sparse-gather",
            Linear(f"fc{m}", x, cases.output((n, k, m), y64), stored, bias, None, function),
            cases.builder,
        )
    cases.check()


@arm64
def test_pool(cases: Cases) -> None:
    from pcc.codegen.kernels.pool import emit_pool

    for size, (kernel, stride, pad), mode in product(
        [(1, 3, 5, 1), (2, 5, 9, 7), (1, 2, 13, 13)], [(3, 2, 1), (2, 2, 0), (3, 1, 1)], ["max", "avg"]
    ):
        if min(size[2:]) + 2 * pad < kernel:
            continue
        x, x64 = cases.input(*size)
        y64 = (
            F.max_pool2d(x64, kernel, stride, pad)
            if mode == "max"
            else F.avg_pool2d(x64, kernel, stride, pad, count_include_pad=False)
        )
        geometry = ConvGeometry((kernel, kernel), (stride, stride), (pad, pad, pad, pad))
        emit_pool(
            Pool2d("pool", x, cases.output((size, kernel, stride, mode), y64), mode, geometry, count_include_pad=False),
            cases.builder,
        )
    x, x64 = cases.input(2, 17, 7, 7)
    y = cases.output("global", x64.mean((2, 3), keepdim=True))
    emit_pool(Pool2d("pool", x, y, "avg", ConvGeometry((7, 7))), cases.builder)
    cases.check()


@arm64
def test_resize(cases: Cases) -> None:
    from pcc.codegen.kernels.resize import emit_resize

    for (mode, align), size in product(
        [("nearest", None), ("bilinear", False), ("bilinear", True)], [(1, 1), (5, 13), (14, 14)]
    ):
        x, x64 = cases.input(1, 3, 7, 6)
        y64 = F.interpolate(x64, size, mode=mode, align_corners=align)
        emit_resize(Resize2d("resize", x, cases.output((mode, align, size), y64), mode, bool(align)), cases.builder)
    cases.check()


@arm64
def test_softmax(cases: Cases) -> None:
    from pcc.codegen.kernels.softmax import emit_softmax

    for shape, dim, log in (((1, 10), 1, False), ((3, 1000), 1, True), ((2, 5, 7), 1, False), ((2, 5, 7), 2, True)):
        x, x64 = cases.input(*shape)
        y64 = torch.log_softmax(x64, dim) if log else torch.softmax(x64, dim)
        emit_softmax(Softmax("softmax", x, cases.output((shape, dim, log), y64), dim, log), cases.builder)
    cases.check()


@arm64
def test_matmul(cases: Cases) -> None:
    from pcc.codegen.kernels.matmul import emit_matmul

    for left, right in (
        ((2, 7, 13), (2, 13, 5)),
        ((3, 49, 17), (1, 17, 70)),
        ((1, 5, 33), (4, 33, 16)),
        ((1, 1, 1), (1, 1, 1)),
    ):
        (a, a64), (b, b64) = cases.input(*left), cases.input(*right)
        emit_matmul(MatMul("product", a, b, cases.output((left, right), a64 @ b64)), cases.builder)
    cases.check()


@arm64
def test_gather(cases: Cases) -> None:
    """By constant and computed indices, with weights and without; one that is NaN or out of range is the nearest that
    is not."""
    from pcc.codegen.kernels.gather import emit_gather

    for (shape, taps), computed in product(
        [((2, 3, 7, 1), 1), ((2, 3, 7, 1), 4), ((1, 2, 9, 13), 1), ((1, 2, 9, 13), 3)], [False, True]
    ):
        index = cases.rng.integers(0, shape[2], (1, taps, 11)).astype(np.float32)
        x, x64 = cases.input(*shape)
        weight = cases.values(*index.shape) if taps > 1 else None
        if computed:
            index[0, 0, :3] = np.nan, -7.0, 3e38
            cases.inputs.append(index)
            table = cases.builder.input(f"in{len(cases.inputs)}", index.shape)
        else:
            table = cases.builder.constant("index", index.astype(np.int32))
        y64 = GATHER(x64, torch.from_numpy(index), None if weight is None else torch.from_numpy(weight).double())
        weights = None if weight is None else cases.builder.constant("weight", weight)
        emit_gather(Gather("gather", x, table, weights, cases.output((shape, taps, computed), y64)), cases.builder)
    cases.check()


@arm64
def test_columns() -> None:
    from pcc.codegen.kernels.columns import emit_scan, emit_top_k
    from pcc.codegen.kernels.copy import emit_convert

    cases = Cases()
    for shape in ((3, 17, 1), (2, 5, 7), (1, 9, 70)):
        x, x64 = cases.input(*shape)
        for mode in ("sum", "prod", "max", "min"):
            emit_scan(cases.builder, cases.output((shape, mode), SCAN(x64, mode)), x, mode)
        for largest, indices in product([True, False], repeat=2):
            y = cases.output((shape, largest, indices), TOP_K(x64, 4, largest, indices))
            emit_top_k(cases.builder, y, x, y.shape[1], largest, indices)
        whole = cases.builder.tensor("whole", shape, INT64)
        cases.builder.output("whole", whole)
        cases.expected.append(("convert", x64.trunc()))
        emit_convert(Convert("convert", x, whole), cases.builder)
    cases.check()


@arm64
def test_places() -> None:
    from pcc.codegen.kernels.nms import emit_nms
    from pcc.codegen.kernels.scatter import emit_scatter

    cases = Cases()
    (x, x64), (updates, updates64), (corner, corner64), (scores, scores64) = (
        cases.input(*shape) for shape in ((3, 17), (3, 9), (2, 4, 33), (2, 3, 33))
    )
    places = cases.rng.permuted(np.tile(np.arange(17, dtype=np.float32), (3, 1)), axis=1)[:, :9].copy()
    cases.inputs.append(places)
    table = cases.builder.input("places", places.shape)
    for mode in ("set", "sum", "max"):
        emit_scatter(
            cases.builder,
            cases.output(mode, SCATTER(x64, torch.from_numpy(places), updates64, mode)),
            x,
            table,
            updates,
            mode,
        )
    emit_nms(
        cases.builder,
        cases.output("nms", NMS(corner64.float(), scores64.float(), 20, 0.1, 0.0).double()),
        corner,
        scores,
        20,
        0.1,
        0.0,
    )
    cases.check()


@arm64
def test_copies(cases: Cases) -> None:
    from pcc.codegen.kernels.copy import emit_copy, emit_fill

    (a, a64), (b, b64) = cases.input(2, 3, 5, 7), cases.input(2, 4, 5, 7)
    y = cases.output("concat", torch.cat([a64, b64], 1))
    for x, at in ((a, 0), (b, 3)):
        emit_copy(Copy("concat", x, replace(y, shape=x.shape, offset=at * 35)), cases.builder)
    emit_fill(Fill("fill", cases.output("fill", torch.full((3, 7), 2.5, dtype=torch.float64)), 2.5), cases.builder)
    turned = replace(a, shape=(2, 5, 7, 3), strides=tuple(contiguous_strides(a.shape)[dim] for dim in (0, 2, 3, 1)))
    emit_copy(Copy("permute", turned, cases.output("permute", a64.permute(0, 2, 3, 1))), cases.builder)
    cases.check()


EXPRESSIONS = [
    "relu(add(x0,mul(x1,0.5)))",
    "mul(x0,sigmoid(x1))",
    "div(sub(x0,x1),add(abs(x1),1))",
    "hardswish(x0)",
    "gelu(x0)",
    "tanh(max(x0,x1))",
    "exp(neg(abs(x0)))",
    "sqrt(add(mul(x0,x0),1))",
    "log(add(mul(x0,x0),1))",
    "gelu(mul(x0,pow(abs(x1),0.3)))",
    "mul(exp2(x0),erf(x1))",
    "add(sin(x0),cos(mul(x1,1048576)))",
    "atan(x0)",
    "pow(abs(x0),x1)",
    "add(add(floor(x0),ceil(x1)),add(trunc(x0),round(x1)))",
    "where(gt(x0,x1),lt(x0,0.5),add(le(x1,0),add(ge(x0,0),add(eq(x0,x0),ne(x0,x1)))))",
    "add(silu(x0),leaky_relu(hardsigmoid(x1),0.1))",
]


ENDS = [float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1e-45, -3e38, 100.0, -100.0]
"""Values at the ends of the functions."""


@arm64
def test_ends_of_functions() -> None:
    """NaN and infinity come out of vectors and of single values as PyTorch has them."""
    functions = ["exp", "log", "sqrt", "tanh", "sigmoid", "relu", "hardswish", "silu", "gelu", "atan"]
    values = torch.tensor(ENDS).double()
    b = ProgramBuilder("ends", isa_named("neon"))
    x = b.input("x", values.shape)
    for name in functions:
        y = b.tensor(name, values.shape)
        emit_elementwise(Elementwise(name, (x,), y, f"{name}(x0)"), b)
        b.output(name, y)
    for cpu, outputs in run_emulated(b.build(), [values.numpy().astype(np.float32)]).items():
        for name, output in zip(functions, outputs, strict=True):
            want = evaluate(parse(f"{name}(x0)"), [values]).float().numpy()
            np.testing.assert_allclose(output, want, rtol=1e-6, atol=1e-37, err_msg=f"{name} on {cpu}")


@arm64
def test_elementwise(cases: Cases) -> None:
    for text, (first, second) in product(EXPRESSIONS, [((2, 3, 5, 7), (2, 3, 5, 7)), ((2, 17, 3, 1), (1, 17, 1, 1))]):
        operands = [cases.input(*shape) for shape in ((first, second) if "x1" in text else (first,))]
        y64 = evaluate(parse(text), [value for _, value in operands])
        views = tuple(view for view, _ in operands)
        emit_elementwise(Elementwise("map", views, cases.output((text, first, second), y64), text), cases.builder)
    cases.check()
