"""Winograd convolution: its matrices in exact arithmetic, its errors, every form against float64 PyTorch, and the
instructions of its products."""

import re
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pcc.codegen.family import family_named
from pcc.codegen.interpret import Memory, interpret
from pcc.codegen.isa import isa_named
from pcc.codegen.kernels.conv_winograd import GEMM_TILES, MOST_ERROR, Tiles
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.gemm_tile import STEPS, GemmTile
from pcc.codegen.kernels.linear_map import multiply_adds
from pcc.codegen.kernels.winograd_forms import FORMS, Form
from pcc.codegen.kernels.winograd_tile import WinogradTile
from pcc.codegen.kernels.winograd_weights import WinogradWeights, pack_weight
from pcc.codegen.layers import Conv2d, ConvGeometry, PooledConv2d
from pcc.codegen.native import NativeKernels
from pcc.codegen.program import ProgramBuilder
from pcc.dtype import FLOAT16, FLOAT32
from pcc.ir.activation import Activation
from pcc.target import Target
from tests.arm64 import arm64, run_emulated
from tests.codegen.kernels.support import (
    ALL_TARGETS,
    LANES,
    X86_TARGETS,
    assembly,
    check,
    external_calls,
    loop_blocks,
    machine_of,
    padded_view,
    rng,
)

FAMILY, POOLED = "conv-dense-winograd", "conv-dense-winograd-pool"
RELU = Activation("relu")
ALL_FORMS = pytest.mark.parametrize("form", FORMS.values(), ids=str)

# ---- the forms ----


@ALL_FORMS
def test_matrices_compute_a_convolution(form: Form) -> None:
    """In one dimension, exactly: A' [(G g) * (B' d)] for numbers that are no fp32."""
    d = [Fraction(3 * i + 1, 7 + i) for i in range(form.inputs)]
    g = [Fraction(5, 3), Fraction(-2, 11), Fraction(7, 13)]

    def times(matrix, values: list[Fraction]) -> list[Fraction]:
        return [sum((c * value for c, value in zip(row, values, strict=True)), Fraction(0)) for row in matrix]

    products = [u * v for u, v in zip(times(form.weight_matrix, g), times(form.input_matrix, d), strict=True)]
    assert times(form.output_matrix, products) == [sum(d[i + j] * g[j] for j in range(3)) for i in range(form.outputs)]


@ALL_FORMS
def test_constants_are_exact_in_fp32(form: Form) -> None:
    for row in (*form.input_matrix, *form.output_matrix):
        assert all(Fraction(float(np.float32(c))) == c for c in row)


def test_pairs_of_points_share_sums() -> None:
    assert [(multiply_adds(form.input_matrix), multiply_adds(form.output_matrix)) for form in FORMS.values()] == [
        (4, 4),
        (12, 12),
        (24, 20),
    ]


def fp32_error(form: Form, channels: int) -> tuple[float, float]:
    """(root mean square error to root mean square output, what `Form.error` says) for random images and weights, in
    fp32."""
    a, b = (np.array(matrix, np.float32) for matrix in (form.output_matrix, form.input_matrix))
    x = np.maximum(rng(0).standard_normal((channels, 48, form.inputs, form.inputs), np.float32), 0)
    weight = rng(1).standard_normal((8, channels, 3, 3), np.float32)
    transformed, values = form.transformed(weight).astype(np.float32), b @ x @ b.T
    products = np.zeros((8, *values.shape[1:]), np.float32)
    for channel in range(channels):
        products += transformed[:, channel, None] * values[channel]
    want = (
        F.conv2d(torch.from_numpy(x).double().transpose(0, 1), torch.from_numpy(weight).double())
        .transpose(0, 1)
        .numpy()
    )
    error = a @ products @ a.T - want
    return float(np.sqrt((error**2).mean() / (want**2).mean())), form.error(weight)


@ALL_FORMS
@pytest.mark.parametrize("channels", [1, 16, 256])
def test_expected_error(form: Form, channels: int) -> None:
    measured, expected = fp32_error(form, channels)
    assert expected / 2 <= measured <= expected * 1.5


def test_forms_that_lose_too_much_are_refused() -> None:
    def forms(channels: int) -> set[int]:
        weight = rng(0).standard_normal((4, channels, 3, 3), np.float32)
        b = ProgramBuilder("forms", isa_named("avx2"))
        layer = Conv2d(
            "conv",
            b.input("x", (1, channels, 12, 12)),
            b.tensor("y", (1, 4, 12, 12)),
            weight,
            None,
            ConvGeometry((3, 3), padding=(1, 1, 1, 1)),
        )
        offered = family_named(FAMILY).candidates(layer, machine_of(b.isa))
        return set() if isinstance(offered, str) else {candidate.schedule.outputs for candidate in offered}

    assert forms(32) == {2, 4, 6}
    assert forms(512) == {2, 4}
    weight = np.zeros((1, 4096, 3, 3), np.float32)
    weight[:, :, 1, 1] = rng(0).standard_normal((1, 4096))
    assert FORMS[4].error(weight) > MOST_ERROR


# ---- layers ----


def emit(layer: Conv2d, b: ProgramBuilder, form: int, place: int) -> None:
    """The layer by one of the family's schedules with that form."""
    family = family_named(POOLED if isinstance(layer, PooledConv2d) else FAMILY)
    offered = family.candidates(layer, machine_of(b.isa))
    assert not isinstance(offered, str), offered
    schedules = [candidate.schedule for candidate in offered if candidate.schedule.outputs == form]
    family.emit(layer, schedules[place % len(schedules)], b)


class Convolution:
    """A random layer, what it must compute, and how its program is made."""

    def __init__(
        self,
        size,
        channels=5,
        filters=9,
        padding=(1, 1, 1, 1),
        groups=1,
        window=(1, 1),
        batch=2,
        residual=False,
        strided=False,
    ) -> None:
        random = rng(1)
        self.geometry, self.groups, self.window, self.strided = (
            ConvGeometry((3, 3), padding=padding),
            groups,
            window,
            strided,
        )
        self.x = random.standard_normal((batch, channels, *size), np.float32)
        self.weight = random.standard_normal((filters, channels // groups, 3, 3), np.float32)
        self.bias = random.standard_normal(filters, np.float32)
        top, left, bottom, right = padding
        padded = F.pad(torch.from_numpy(self.x).double(), (left, right, top, bottom))
        want = F.conv2d(
            padded, torch.from_numpy(self.weight).double(), torch.from_numpy(self.bias).double(), groups=groups
        )
        self.addend = random.standard_normal(tuple(want.shape), np.float32) if residual else None
        want = want if self.addend is None else want + torch.from_numpy(self.addend).double()
        self.want = F.max_pool2d(want.relu(), window)

    @property
    def inputs(self) -> list[np.ndarray]:
        return [self.x] if self.addend is None else [self.x, self.addend]

    def build(self, b: ProgramBuilder, form: int, place: int) -> None:
        x, residual = b.input("x", self.x.shape), None if self.addend is None else b.input("r", self.addend.shape)
        n, c, h, w = self.want.shape
        y = padded_view(b, "y", (n, c, h, w)) if self.strided else b.tensor("y", (n, c, h, w))
        layer = Conv2d("conv", x, y, self.weight, self.bias, self.geometry, self.groups, residual, RELU)
        emit(layer if self.window == (1, 1) else PooledConv2d(**vars(layer), window=self.window), b, form, place)
        if self.strided:  # a convolution by 1 puts it where the test looks
            copied = b.tensor("z", (n, c, h, w))
            dense = family_named("conv-dense")
            copy = Conv2d("copy", y, copied, np.eye(c, dtype=np.float32)[:, :, None, None], None, ConvGeometry((1, 1)))
            dense.emit(copy, dense.candidates(copy, machine_of(b.isa))[0].schedule, b)  # type: ignore[union-attr]
            y = copied
        b.output("out", y)


def compare(form: Form, size: tuple[int, int], place: int, **kwargs) -> None:
    convolution = Convolution(size, **kwargs)
    check(lambda b: convolution.build(b, form.outputs, place), convolution.inputs, [convolution.want])


@ALL_FORMS
@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((13, 17), {"residual": True}),
        ((9, 7), {"channels": 6, "groups": 3, "padding": (0, 3, 20, 11)}),
        ((24, 65), {"filters": 17, "strided": True}),
    ],
    ids=str,
)
def test_agrees_with_pytorch(form: Form, size, options) -> None:
    compare(form, size, sum(size), **options)


@ALL_FORMS
def test_pools(form: Form) -> None:
    compare(form, (14, 20), 5, window=(2, 2))


def test_one_pixel() -> None:
    compare(FORMS[2], (1, 1), 0, channels=1, filters=1, batch=1)


def test_runs_of_tiles() -> None:
    """Where four tiles beside each other fill a vector, in planes that tiles divide and in others, and pooled."""
    for size, options in (((32, 64), {"residual": True}), ((30, 62), {}), ((32, 64), {"window": (2, 2)})):
        compare(FORMS[4], size, 3, **options)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    size=st.tuples(st.integers(1, 23), st.integers(1, 23)),
    padding=st.tuples(*[st.integers(0, 4)] * 4),
    groups=st.integers(1, 3),
    each=st.tuples(st.integers(1, 5), st.integers(1, 20)),
    form=st.sampled_from(list(FORMS)),
    place=st.integers(0, 1000),
    isa=st.sampled_from(["avx512", "avx2", "neon"]),
    residual=st.booleans(),
)
def test_any_shape_and_schedule(size, padding, groups, each, form, place, isa, residual) -> None:
    """The numpy meaning of the kernel: tables, blocks, chunks and edges. Machine code has the same."""
    top, left, bottom, right = padding
    if size[0] + top + bottom < 3 or size[1] + left + right < 3:
        return
    channels, filters = each
    convolution = Convolution(size, channels * groups, filters * groups, padding, groups, residual=residual)
    b = ProgramBuilder("any", isa_named(isa))
    convolution.build(b, form, place)
    (output,) = interpret(b.build(), convolution.inputs, parts=2)
    want = convolution.want.numpy()
    assert np.abs(output - want).max() <= 1e-5 * max(1.0, np.abs(want).max())


@pytest.mark.parametrize(
    "geometry",
    [ConvGeometry((3, 3), (2, 2)), ConvGeometry((3, 3), dilation=(2, 2)), ConvGeometry((1, 1)), ConvGeometry((3, 5))],
    ids=str,
)
def test_other_windows_are_refused(geometry: ConvGeometry) -> None:
    b = ProgramBuilder("other", isa_named("avx2"))
    weight = np.ones((4, 4, *geometry.window), np.float32)
    y = b.tensor("y", (1, 4, *geometry.output_size(9, 9)))
    reason = family_named(FAMILY).candidates(
        Conv2d("conv", b.input("x", (1, 4, 9, 9)), y, weight, None, geometry), machine_of(b.isa)
    )
    assert reason == "it is for 3x3 windows with stride and dilation 1"


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_tiles_lie_in_lanes_once(lanes: int) -> None:
    tiles = Tiles.of((13, 22), 4, lanes)
    places = sorted(zip(tiles.row[tiles.exists].tolist(), tiles.column[tiles.exists].tolist(), strict=True))
    assert places == [(row, column) for row in range(0, 13, 4) for column in range(0, 22, 4)]


@ALL_FORMS
@pytest.mark.parametrize("filters", [4, 8, 12, 16])
@pytest.mark.parametrize("target", X86_TARGETS, ids=lambda target: target.cpu)
def test_weights_are_transformed(form: Form, filters: int, target: Target) -> None:
    """Two groups of 21 filters and 3 channels, chunks of 2 panels, in parts, against double precision; what shares
    weights and form is transformed once."""
    lanes, weight = LANES[target.isa], rng(0).standard_normal((42, 3, 3, 3), np.float32)
    panels, places = -(-21 // filters), form.inputs**2
    chunks = -(-panels // 2)
    b = ProgramBuilder("weights", isa_named(target.isa))
    shipped = {
        "shipped": b.constant("weight", pack_weight(weight, 2)),
        "channels": 3,
        "filters": 21,
        "panels": panels,
        "panels_per_chunk": 2,
        "chunks": chunks,
    }
    shape = (2, chunks, places, 2, 3, filters)
    transformed = b.prepared("transformed", shape, WinogradWeights(form, filters, lanes), "w", shipped, work=2 * panels)
    assert (
        b.prepared("again", shape, WinogradWeights(form, filters, lanes), "w", shipped, work=2 * panels) == transformed
    )
    program = b.build()
    (call,) = program.preparation
    want = form.transformed(weight).reshape(2, 21, 3, places)
    for run in (call.kernel.reference, partial(NativeKernels([call.kernel], target).call, call.kernel)):
        memory = Memory(program)
        for part in range(3):
            run(memory.arguments(call), call.work * part // 3, call.work * (part + 1) // 3)
        found = (
            memory.arrays[transformed.buffer][: np.prod(shape)]
            .reshape(shape)
            .transpose(0, 1, 3, 5, 4, 2)
            .reshape(2, -1, 3, places)[:, :21]
        )
        np.testing.assert_allclose(found, want, rtol=0, atol=4e-7 * float(np.abs(want).max()))


# ---- machine code ----


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
def test_loop_of_products(target: Target) -> None:
    """A multiply-add for each accumulator and step, no more loads than vectors and weights, and nothing of it on the
    stack."""
    lanes = LANES[target.isa]
    gemm = GEMM_TILES[lanes * FLOAT32.bytes][0]
    text = assembly(WinogradTile(FORMS[2], gemm, lanes, 2 * gemm.vectors, 1, 1, Epilogue()), target)
    assert external_calls(text) == set()
    (loop,) = (
        block
        for block in loop_blocks(text)
        if len(re.findall(r"\b(?:vfmadd\w+ps|fmla)\b", block)) == STEPS * gemm.filters * gemm.vectors
    )
    assert not re.search(r"\((?:%rsp|%rbp)|\[sp", loop)
    loads = len(re.findall(r"\bld\w+|\bvmov\w+\s+[^%]*\(|vbroadcastss|vfmadd\w+\s+[^%]*\(", loop))
    if target.isa == "neon":
        assert loads == STEPS * (gemm.filters // lanes + gemm.vectors) / 2  # in pairs
        assert len(re.findall(r"fmla\s+v\d+\.4s, v\d+\.4s, v\d+\.s\[\d\]", loop)) == STEPS * gemm.filters * gemm.vectors
    else:
        assert loads <= STEPS * (gemm.filters + gemm.vectors)


@arm64
def test_arm64() -> None:
    """Every form and a pool on emulated cores."""
    b, want = ProgramBuilder("arm64", isa_named("neon")), []
    value = rng(1).standard_normal((1, 5, 13, 20), np.float32)
    weight = rng(2).standard_normal((9, 5, 3, 3), np.float32)
    x, expected = (
        b.input("x", value.shape),
        F.conv2d(torch.from_numpy(value).double(), torch.from_numpy(weight).double(), None, 1, (1, 1)).relu(),
    )
    geometry = ConvGeometry((3, 3), padding=(1, 1, 1, 1))
    for place, (form, window) in enumerate([(2, (1, 1)), (4, (1, 1)), (6, (1, 1)), (4, (1, 2))]):
        want.append(F.max_pool2d(expected, window).numpy())
        y = b.tensor(f"y{place}", want[-1].shape)
        layer = Conv2d(f"conv{place}", x, y, weight, None, geometry, activation=RELU)
        emit(layer if window == (1, 1) else PooledConv2d(**vars(layer), window=window), b, form, place)
        b.output(y.buffer, y)
    for cpu, outputs in run_emulated(b.build(), [value]).items():
        for output, each in zip(outputs, want, strict=True):
            error = np.abs(output.reshape(each.shape) - each).max() / np.abs(each).max()
            assert error <= 1e-5, f"{cpu}: relative error {error:g}"


def test_weights_from_behind_the_cache_are_asked_for() -> None:
    """Once a cache line for each of two caches."""
    tile = GemmTile(16, 1, prefetch=True)
    target = ALL_TARGETS[-2]
    lanes = LANES[target.isa]
    text = assembly(WinogradTile(FORMS[2], tile, lanes, 1, 1, 1, Epilogue()), target)
    assert (
        len(re.findall("prefetcht0", text))
        == len(re.findall("prefetcht1", text))
        == STEPS * tile.filters * FLOAT32.bytes // 64
    )
    assert "prefetch" not in assembly(
        WinogradTile(FORMS[2], replace(tile, prefetch=False), lanes, 1, 1, 1, Epilogue()), target
    )


# ---- fp16 ----


@pytest.mark.parametrize("pool", [False, True], ids=["plain", "pooled"])
def test_tensors_of_fp16_are_summed_in_fp32(pool: bool) -> None:
    """Outputs are those of the rounded operands, rounded once."""
    random = rng(5)
    x, residual = (random.standard_normal((2, size, 13, 18)).astype(np.float16) for size in (37, 21))
    weight, bias = random.standard_normal((21, 37, 3, 3)).astype(np.float16), random.standard_normal(21, np.float32)
    if pool:
        x = x[:, :, :12]

    def build(b: ProgramBuilder) -> None:
        size = (2, 21, 6, 9) if pool else (2, 21, 13, 18)
        geometry = ConvGeometry((3, 3), padding=(1, 1, 1, 1))
        y = b.tensor("y", size, FLOAT16)
        layer = Conv2d("conv", b.input("x", x.shape, FLOAT16), y, weight, bias, geometry, 1, None, RELU)
        if pool:
            layer = PooledConv2d(**vars(layer), window=(2, 2))
        else:
            layer = replace(layer, residual=b.input("r", residual.shape, FLOAT16))
        family = family_named(POOLED if pool else FAMILY)
        candidates = family.candidates(layer, machine_of(b.isa))
        family.emit(layer, candidates[-1].schedule, b)  # type: ignore[union-attr]
        b.output("y", y)

    want = F.conv2d(
        torch.from_numpy(x).double(), torch.from_numpy(weight).double(), torch.from_numpy(bias).double(), padding=1
    )
    want = F.max_pool2d(want, 2).relu() if pool else (want + torch.from_numpy(residual)).relu()
    for program in check(build, [x] if pool else [x, residual], [want], rtol=2.0**-11):
        (call,) = program.calls
        assert "_x_f16_y_f16" in call.kernel.name  # and the arithmetic is fp32, or it would say so
