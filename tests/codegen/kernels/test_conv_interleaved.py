"""Convolutions on block-interleaved lines that are dense, or pooled in the registers: against float64 PyTorch, and what
their stores are made of."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pcc.codegen.family import families, family_named
from pcc.codegen.isa import isa_named
from pcc.codegen.kernels.conv_interleaved import InterleavedFamily
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.interleave import SAME_SETS, Blocks, Layout
from pcc.codegen.kernels.interleaved_schedule import InterleavedSchedule
from pcc.codegen.kernels.interleaved_tile import InterleavedTile, users_of_lines
from pcc.codegen.kernels.tile_store import pieces
from pcc.codegen.layers import Conv2d, ConvGeometry, PooledConv2d
from pcc.codegen.program import ProgramBuilder
from pcc.dtype import FLOAT32
from pcc.ir.activation import Activation
from pcc.sparsity import fkw, joint, pattern
from pcc.target import Target
from tests.arm64 import arm64, run_emulated
from tests.codegen.kernels.support import (
    ALL_TARGETS,
    X86_TARGETS,
    assembly,
    check,
    external_calls,
    loop_blocks,
    machine_of,
    rng,
)

RELU = Activation("relu")
PADDED = ConvGeometry((3, 3), padding=(1, 1, 1, 1))
NAMES = [name for name, family in families().items() if isinstance(family, InterleavedFamily)]
POOLED = [name for name in NAMES if name.endswith("-pool")]
SMALL_TILE = 300
"""Multiply-adds in the code of a kernel that tests compile: they are many."""


def emit(
    name: str, layer: Conv2d, b: ProgramBuilder, place: int, by_strips: bool, at_a_time: int | None = None
) -> None:
    """The layer by one of the family's schedules with little code, so many channels at a time."""
    offered = family_named(name).candidates(layer, machine_of(b.isa))
    assert not isinstance(offered, str), offered
    taps = np.prod(layer.geometry.window) * (1 if isinstance(layer.weight, np.ndarray) else len(pattern.DESIGNED))
    schedules = [c.schedule for c in offered if not c.schedule.in_strips]
    small = [s for s in schedules if all(rows * s.columns * taps <= SMALL_TILE for rows, _ in s.heights)] or schedules
    schedule = replace(small[place % len(small)], in_strips=by_strips, prefetch=by_strips, channels=at_a_time)
    family_named(name).emit(layer, schedule, b)


def weights(name: str, shape: tuple[int, ...], groups: int = 1) -> tuple[np.ndarray, np.ndarray | fkw.FKW]:
    """The weight, and as the family takes it."""
    dense = rng(0).standard_normal(shape).astype(np.float32)
    if family_named(name).format == "dense":
        return dense, dense
    cut = joint.project(dense, pattern.DESIGNED if shape[2:] == (3, 3) else None, 2.0, groups=groups)
    return cut.weight, fkw.pack(cut.weight, groups, pattern.DESIGNED if shape[2:] == (3, 3) else None, 1, cut.order)


def compare(
    name,
    size,
    channels=5,
    filters=6,
    geometry=PADDED,
    groups=1,
    window=(1, 1),
    batch=2,
    place=0,
    by_strips=False,
    at_a_time=None,
) -> None:
    weight, stored = weights(name, (filters, channels // groups, *geometry.window), groups)
    x = rng(1).standard_normal((batch, channels, *size)).astype(np.float32)
    bias = rng(2).standard_normal(filters).astype(np.float32)
    top, left, bottom, right = geometry.padding
    padded = F.pad(torch.from_numpy(x).double(), (left, right, top, bottom))
    want = F.conv2d(
        padded,
        torch.from_numpy(weight).double(),
        torch.from_numpy(bias).double(),
        geometry.stride,
        0,
        geometry.dilation,
        groups,
    ).relu()

    def build(b: ProgramBuilder) -> None:
        view, y = b.input("x", x.shape), b.tensor("y", tuple(F.max_pool2d(want, window).shape))
        layer = Conv2d("conv", view, y, stored, bias, geometry, groups, activation=RELU)
        if name in POOLED:
            layer = PooledConv2d(**vars(layer), window=window)
        emit(name, layer, b, place, by_strips, at_a_time)
        b.output("y", y)

    # A tile of whole windows and the nine weights of a dense window do not fit 16 registers.
    fits_avx2 = family_named(name).format != "dense" or window in ((1, 1), (2, 2), (1, 2))
    check(
        build,
        [x],
        [F.max_pool2d(want, window)],
        targets=[target for target in X86_TARGETS if fits_avx2 or target.isa != "avx2"],
    )


@pytest.mark.parametrize("by_strips", [False, True])
def test_channels_do_not_share_the_sets_of_caches(by_strips: bool) -> None:
    """16 rows of 4 lines are 2 KiB: a row more lies between channels, and the sums are the same."""
    blocks = Blocks(8, 7, 14, 2)
    layout = Layout(blocks, PADDED, 14, 14)
    assert (layout.rows, layout.apart(16), layout.apart(7)) == (17, 17, 7)
    assert layout.plane * FLOAT32.bytes % SAME_SETS
    weight, stored = weights("conv-sparse-interleaved", (6, 5, 3, 3))
    x = rng(1).standard_normal((2, 5, 14, 14)).astype(np.float32)

    def build(b: ProgramBuilder) -> None:
        view, y = b.input("x", x.shape), b.tensor("y", (2, 6, 14, 14))
        layer = Conv2d("conv", view, y, stored, None, PADDED)
        schedule = InterleavedSchedule(blocks, 1, ((14, 1),), in_strips=by_strips)
        family_named("conv-sparse-interleaved").emit(layer, schedule, b)
        b.output("y", y)

    want = F.conv2d(torch.from_numpy(x).double(), torch.from_numpy(weight).double(), padding=1)
    check(build, [x], [want], targets=[target for target in X86_TARGETS if target.isa == "avx2"])


@pytest.mark.parametrize("by_strips", [False, True], ids=["whole", "strips"])
@pytest.mark.parametrize("name", POOLED)
@pytest.mark.parametrize(
    ("size", "window"),
    [
        ((12, 20), (2, 2)),
        ((2, 34), (2, 2)),
        ((28, 6), (2, 2)),
        ((9, 15), (3, 3)),
        ((8, 12), (2, 4)),
        ((10, 10), (1, 2)),
    ],
    ids=str,
)
def test_pools_of_many_windows(name, size, window, by_strips) -> None:
    """Blocks overlap where they do not divide a plane, and still begin where a window does."""
    compare(name, size, window=window, place=sum(size), by_strips=by_strips)


@pytest.mark.parametrize("name", POOLED)
@pytest.mark.parametrize("place", range(6))
def test_pools_by_many_schedules(name, place) -> None:
    compare(name, (16, 20), window=(2, 2), place=place * 7)


@pytest.mark.parametrize("name", POOLED)
def test_pools_of_strided_grouped_and_dilated_convolutions(name) -> None:
    compare(
        name, (16, 21), geometry=ConvGeometry((3, 3), (2, 1), (0, 1, 2, 0), (1, 2)), channels=6, groups=2, window=(2, 2)
    )


@pytest.mark.parametrize("by_strips", [False, True], ids=["whole", "strips"])
@pytest.mark.parametrize(
    ("size", "geometry"),
    [
        ((13, 30), PADDED),
        ((7, 7), PADDED),
        ((11, 13), ConvGeometry((3, 3), (2, 2), (1, 1, 1, 1))),
        ((9, 16), ConvGeometry((2, 3), (1, 1), (0, 2, 1, 1), (1, 2))),
    ],
    ids=str,
)
def test_dense_weights(size, geometry, by_strips) -> None:
    compare("conv-dense-interleaved", size, geometry=geometry, by_strips=by_strips)
    compare("conv-dense-interleaved", size, channels=6, groups=3, geometry=geometry, by_strips=by_strips)


@pytest.mark.parametrize("by_strips", [False, True], ids=["whole", "strips"])
@pytest.mark.parametrize("at_a_time", [1, 3, 6])
@pytest.mark.parametrize("name", NAMES)
def test_channels_by_blocks(name, at_a_time, by_strips) -> None:
    """Sums wait in a thread's memory, whose part of the filters begins anywhere; the last block may be smaller."""
    window = (2, 2) if name in POOLED else (1, 1)
    compare(name, (12, 20), 7, 24, window=window, place=at_a_time, by_strips=by_strips, at_a_time=at_a_time)
    strided = ConvGeometry((3, 3), (2, 1), (0, 1, 2, 0), (1, 2))
    compare(name, (8, 13), 8, 6, strided, 2, window, place=2, by_strips=by_strips, at_a_time=at_a_time)


@pytest.mark.parametrize(
    ("isa", "channels", "at_a_time"),
    [("avx2", 256, 32), ("avx2", 96, None), ("avx512", 256, None), ("neon", 256, None)],
)
def test_blocks_fit_the_l1_cache(isa, channels, at_a_time) -> None:
    """Where a tile has few accumulators, and its lines of all channels are far more than the cache holds."""
    _, stored = weights("conv-sparse-interleaved", (8, channels, 3, 3))
    b = ProgramBuilder("blocks", isa_named(isa))
    layer = Conv2d("conv", b.input("x", (1, channels, 28, 28)), b.tensor("y", (1, 8, 28, 28)), stored, None, PADDED)
    offered = family_named("conv-sparse-interleaved").candidates(layer, machine_of(b.isa))
    assert not isinstance(offered, str)
    tiles = {
        candidate.schedule.channels
        for candidate in offered
        if candidate.schedule.columns == 4 and {rows for rows, _ in candidate.schedule.heights} == {2}
    }
    assert tiles == {None, at_a_time}


@pytest.mark.parametrize("name", POOLED)
def test_a_residual_is_not_pooled(name) -> None:
    _, stored = weights(name, (4, 4, 3, 3))
    b = ProgramBuilder("residual", isa_named("avx2"))
    x, y, r = b.input("x", (1, 4, 8, 8)), b.tensor("y", (1, 4, 4, 4)), b.input("r", (1, 4, 8, 8))
    reason = family_named(name).candidates(
        PooledConv2d("conv", x, y, stored, None, PADDED, residual=r), machine_of(b.isa)
    )
    assert isinstance(reason, str)
    assert "residual" in reason


@pytest.mark.parametrize("name", POOLED)
def test_windows_divide_the_plane(name) -> None:
    _, stored = weights(name, (4, 4, 3, 3))
    b = ProgramBuilder("odd", isa_named("avx2"))
    x, y = b.input("x", (1, 4, 9, 8)), b.tensor("y", (1, 4, 4, 4))
    assert "divide" in str(
        family_named(name).candidates(PooledConv2d("conv", x, y, stored, None, PADDED), machine_of(b.isa))
    )


@pytest.mark.parametrize("rows", range(1, 8))
@pytest.mark.parametrize("columns", range(1, 12))
def test_pieces_cover_a_tile(rows: int, columns: int) -> None:
    stored = set()
    for members, runs in pieces(rows, columns):
        assert sum(width for _, _, width, _ in runs) == len(members)
        for row, first, width, place in runs:
            assert width in (1, 2, 4)
            assert list(members[place : place + width]) == [
                row * columns + column for column in range(first, first + width)
            ]
            stored |= {(row, column) for column in range(first, first + width)}
    assert stored == {(row, column) for row in range(rows) for column in range(columns)}


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
def test_pooled_tiles_store_a_quarter(target: Target) -> None:
    """Of a 4x4 tile every lane stores two rows of two; the multiply-adds are those of a tile without a pool, and
    nothing touches the stack there."""
    isa = isa_named(target.isa)
    lanes, patterns = isa.lanes(FLOAT32), (((0, 0), (0, 1), (1, 0), (1, 1)),)
    rows, columns = (2, 4) if isa.name == "avx2" else (4, 4)
    text = assembly(
        InterleavedTile(
            rows, columns, 1, patterns, (1, 1), columns + 2, lanes, Epilogue(activation=RELU), window=(2, 2)
        ),
        target,
    )
    assert external_calls(text) == set()
    halves = r"vmov[lh]ps\s+%xmm\d+, |vextract\w+.*\(|str\s+d\d+|st1\s+\{ ?v\d+\.d|stp\s+d\d+"
    assert len(re.findall(halves, text)) <= rows // 2 * lanes + lanes
    (loop,) = (
        block
        for block in loop_blocks(text)
        if len(re.findall(r"\b(?:vfmadd\w+ps|fmla)\b", block)) == 4 * rows * columns
    )
    assert not re.search(r"\(%rsp|\[sp", loop)


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
def test_loop_of_a_dense_weight(target: Target) -> None:
    """One loop over channels, in the widest tiles: nine multiply-adds for each accumulator, no more loads than lines
    and weights."""
    isa = isa_named(target.isa)
    rows, columns = {"avx512": (2, 8), "avx2": (1, 5), "neon": (2, 8)}[isa.name]
    window = tuple((tap // 3, tap % 3) for tap in range(9))
    text = assembly(
        InterleavedTile(rows, columns, 1, (window,), (1, 1), columns + 2, isa.lanes(FLOAT32), Epilogue()), target
    )
    (loop,) = (
        block
        for block in loop_blocks(text)
        if len(re.findall(r"\b(?:vfmadd\w+ps|fmla)\b", block)) == 9 * rows * columns
    )
    lines = len(users_of_lines(window, rows, columns, (1, 1)))
    if isa.name == "neon":
        assert (
            len([q for pair in re.findall(r"\bld(?:p|u?r)\s+(q\d+)(?:, (q\d+))?", loop) for q in pair if q])
            <= lines + 3
        )
    else:
        assert len(re.findall(r"vmovups\s+[^%]*\(|vfmadd\w+ps\s+[^%]*\(", loop)) <= lines
        assert len(re.findall(r"vbroadcastss", loop)) <= 9
    assert not re.search(r"\(%rsp|\[sp", loop)


@arm64
@pytest.mark.parametrize("at_a_time", [None, 2])
def test_arm64(at_a_time: int | None) -> None:
    """Every family on emulated cores."""
    b, want = ProgramBuilder("arm64", isa_named("neon")), []
    value = rng(1).standard_normal((1, 5, 12, 20)).astype(np.float32)
    x = b.input("x", value.shape)
    for name in NAMES:
        weight, stored = weights(name, (6, 5, 3, 3))
        expected = F.conv2d(torch.from_numpy(value).double(), torch.from_numpy(weight).double(), None, 1, 1).relu()
        window = (2, 2) if name in POOLED else (1, 1)
        want.append(F.max_pool2d(expected, window).numpy())
        y = b.tensor(f"y_{name}", want[-1].shape)
        layer = Conv2d(f"conv_{name}", x, y, stored, None, PADDED, activation=RELU)
        emit(name, PooledConv2d(**vars(layer), window=window) if name in POOLED else layer, b, 3, True, at_a_time)
        b.output(y.buffer, y)
    for cpu, outputs in run_emulated(b.build(), [value]).items():
        for output, expected in zip(outputs, want, strict=True):
            error = np.abs(output.reshape(expected.shape) - expected).max() / np.abs(expected).max()
            assert error <= 1e-5, f"{cpu}: relative error {error:g}"


def test_a_dense_weight_keeps_its_zeros() -> None:
    """What a dense layer takes does not hang on its weights: costs, and comparisons with it, count every connection."""
    weight = np.zeros((4, 6, 3, 3), np.float32)
    weight[1, 2] = rng(0).standard_normal((3, 3))
    b = ProgramBuilder("zeros", isa_named("avx2"))
    layer = Conv2d("conv", b.input("x", (1, 6, 8, 8)), b.tensor("y", (1, 4, 8, 8)), weight, None, PADDED)
    emit("conv-dense-interleaved", layer, b, 0, by_strips=False)
    assert sum(call.macs for call in b.calls) == 4 * 6 * 9 * 64
