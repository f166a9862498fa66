"""Sparse convolutions: against float64 PyTorch over odd shapes, forms, structures and strides of memory; what their
inner loops are made of."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pcc.codegen.family import cheapest, families, family_named
from pcc.codegen.isa import isa_named
from pcc.codegen.kernels.conv_interleaved import _loads
from pcc.codegen.kernels.conv_sparse_gather import MOST_TAPS, ConvSparseGather, GatherSchedule
from pcc.codegen.kernels.conv_sparse_scatter import INPUT_REGISTERS, ConvSparseScatter, ScatterSchedule
from pcc.codegen.kernels.copy import emit_copy
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.even_lists import even_lists
from pcc.codegen.kernels.interleaved_tile import InterleavedTile, users_of_lines
from pcc.codegen.kernels.pointwise_tile import ConvSparsePointwise
from pcc.codegen.kernels.shared_tables import list_lengths, shared_tables
from pcc.codegen.kernels.sparse_tables import gather_tables, scatter_tables
from pcc.codegen.layers import Conv2d, ConvGeometry, Copy
from pcc.codegen.machine import MACHINES
from pcc.codegen.objects import compile_kernel
from pcc.codegen.program import ProgramBuilder, View
from pcc.dtype import FLOAT32
from pcc.errors import PccError
from pcc.ir.activation import IDENTITY, Activation
from pcc.sparsity import fkw, joint, pattern
from pcc.target import Target, target_named
from tests.arm64 import arm64, run_emulated
from tests.codegen.kernels.support import (
    ALL_TARGETS,
    LANES,
    assembly,
    check,
    external_calls,
    inner_loop,
    loop_blocks,
    machine_of,
    rng,
)

EIGHT = np.array(
    [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8], [0, 2, 4, 8], [1, 3, 4, 5], [1, 4, 6, 7], [3, 4, 5, 8]],
    np.int32,
)
SPARSE = (
    "conv-sparse-scatter",
    "conv-sparse-gather",
    "conv-sparse-pointwise",
    "conv-sparse-interleaved",
    "conv-sparse-interleaved-scatter",
)
BY_STRIPS = "conv-sparse-interleaved, by strips"
FORMS = (*SPARSE, BY_STRIPS)
FAMILY = pytest.mark.parametrize("family", ["chosen", *FORMS])
SMALL_TILE = 300
"""Multiply-adds in the code of an interleaved kernel that tests compile: they are many."""


def emit(layer: Conv2d, b: ProgramBuilder, family: str) -> None:
    """The layer by a family, with schedules small enough that little layers have several tiles and blocks; ``chosen``:
    the cheapest of all."""
    machine = machine_of(b.isa)
    if family == "chosen":
        priced = {
            name: found for name in SPARSE if not isinstance(found := cheapest(family_named(name), layer, machine), str)
        }
        family = min(priced, key=lambda name: priced[name][1])
        schedule = priced[family][0].schedule
    elif family == "conv-sparse-scatter":
        schedule = ScatterSchedule(2 * b.isa.lanes(FLOAT32), block=5, room=8, most_taps=9)
    elif family == "conv-sparse-gather":
        schedule = GatherSchedule(3 * b.isa.lanes(FLOAT32), block=2, most_taps=4)
    else:
        assert isinstance(layer.weight, fkw.FKW)
        by_strips = family == BY_STRIPS
        if family != "conv-sparse-interleaved-scatter":
            family = "conv-sparse-interleaved"
        offered = family_named(family).candidates(layer, machine)
        if isinstance(offered, str):  # where it does not fit, the reason says why, and there is nothing to compare
            assert "1x1" in offered or "fits" in offered
            return emit(layer, b, "chosen")
        size = layer.weight.patterns.size
        if family == "conv-sparse-interleaved-scatter":
            some = offered[len(layer.weight.index) % len(offered)].schedule
            return family_named(family).emit(layer, replace(some, filters=replace(some.filters, block=5, room=8)), b)
        small = [
            c.schedule
            for c in offered
            if all(rows * c.schedule.columns * size <= SMALL_TILE for rows, _ in c.schedule.heights)
        ] or [offered[0].schedule]
        schedule = replace(small[len(layer.weight.index) % len(small)], in_strips=by_strips, prefetch=by_strips)
    family_named(family).emit(layer, schedule, b)


RELU6 = Activation("clip", (0.0, 6.0))


def sparse(shape, patterns=None, rate=2.0, share=1, groups=1) -> tuple[np.ndarray, fkw.FKW]:
    """A pruned weight, dense and packed."""
    dense = rng(0).standard_normal(shape).astype(np.float32)
    cut = joint.project(dense, patterns, rate, share=share, groups=groups)
    return cut.weight, fkw.pack(cut.weight, groups, patterns, share, cut.order)


def conv(
    shape, pair, geometry, *, groups=1, bias=True, residual=False, activation=IDENTITY, family="chosen", strided=False
) -> None:
    """Checks one layer on an input of ``shape``; ``pair`` is its weight, dense and packed. ``strided``: into the middle
    channels of a larger tensor."""
    weight, packed = pair
    x = rng(1).standard_normal(shape).astype(np.float32)
    biases = rng(2).standard_normal(len(weight)).astype(np.float32) if bias else None
    top, left, bottom, right = geometry.padding
    padded = F.pad(torch.from_numpy(x).double(), (left, right, top, bottom))
    double = None if biases is None else torch.from_numpy(biases).double()
    want = F.conv2d(padded, torch.from_numpy(weight).double(), double, geometry.stride, 0, geometry.dilation, groups)
    added = rng(3).standard_normal(tuple(want.shape)).astype(np.float32)
    want = activation(want + torch.from_numpy(added) if residual else want)

    def layer(b: ProgramBuilder, x_view: View, y: View, r: View) -> None:
        convolution = Conv2d("conv", x_view, y, packed, biases, geometry, groups, r if residual else None, activation)
        emit(convolution, b, family)

    def build(b: ProgramBuilder) -> None:
        x_view, r = b.input("x", x.shape), b.input("r", added.shape)
        if not strided:
            y = b.tensor("y", added.shape)
            layer(b, x_view, y, r)
        else:  # the same layer twice, into the two halves of the channels
            n, c, h, w = added.shape
            y = b.tensor("y", (n, 2 * c, h, w))
            for half in range(2):
                layer(b, x_view, replace(y, shape=added.shape, offset=half * c * h * w), r)
        b.output("y", y)

    check(build, [x, added], [torch.cat([want, want], 1) if strided else want])


@FAMILY
@pytest.mark.parametrize(("width", "channels"), [(1, 3), (7, 17), (13, 1), (13, 6), (30, 3)])
def test_patterns_over_widths(family, width, channels) -> None:
    pair = sparse((13, channels, 3, 3), EIGHT, rate=1.5 if channels > 1 else 1.0)
    conv((1, channels, 9, width), pair, ConvGeometry((3, 3), padding=(1, 1, 1, 1)), family=family)


@FAMILY
@pytest.mark.parametrize(
    "geometry",
    [
        ConvGeometry((3, 3)),
        ConvGeometry((3, 3), (2, 2), (1, 1, 1, 1)),
        ConvGeometry((3, 3), (3, 2), (0, 1, 2, 3)),
        ConvGeometry((3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
        ConvGeometry((3, 3), (2, 1), (3, 0, 1, 2), (2, 1)),
    ],
    ids=str,
)
def test_patterns_over_geometries(family, geometry) -> None:
    conv((2, 5, 11, 13), sparse((6, 5, 3, 3), pattern.DESIGNED), geometry, family=family)


@FAMILY
@pytest.mark.parametrize("kernel", [(1, 1), (2, 3), (3, 3), (5, 5), (1, 7)], ids=str)
def test_connectivity_over_kernel_sizes(family, kernel) -> None:
    """All taps of a connection; long ones are cut into parts."""
    conv((1, 6, 9, 13), sparse((9, 6, *kernel), rate=3.0), ConvGeometry(kernel, padding=(0, 1, 2, 1)), family=family)


@FAMILY
@pytest.mark.parametrize("share", [1, 2, 4])
def test_filter_groups(family, share) -> None:
    conv(
        (1, 7, 8, 7),
        sparse((12, 7, 3, 3), EIGHT, rate=3.6, share=share),
        ConvGeometry((3, 3), padding=(1, 1, 1, 1)),
        family=family,
    )


@FAMILY
@pytest.mark.parametrize(("groups", "share"), [(2, 1), (2, 2), (3, 4), (12, 1)])
def test_grouped_convolutions(family, groups, share) -> None:
    pair = sparse((12, 2, 3, 3), EIGHT, rate=1.5, share=share, groups=groups)
    conv((2, 2 * groups, 7, 7), pair, ConvGeometry((3, 3), (2, 2), (1, 1, 1, 1)), groups=groups, family=family)


@FAMILY
@pytest.mark.parametrize("strided", [False, True], ids=["whole", "strided"])
def test_epilogue(family, strided) -> None:
    pair = sparse((7, 4, 3, 3), pattern.DESIGNED)
    conv(
        (1, 4, 6, 19),
        pair,
        ConvGeometry((3, 3), padding=(1, 1, 1, 1)),
        residual=True,
        activation=RELU6,
        family=family,
        strided=strided,
    )


@FAMILY
def test_planes_without_junk(family) -> None:
    """Stride 1 and no padding: the input is read where it is and stored as one run."""
    conv((2, 9, 5, 7), sparse((8, 9, 1, 1), rate=2.0), ConvGeometry((1, 1)), residual=True, family=family)


@pytest.mark.parametrize("channels", [24, 5], ids=["at-once", "blocks"])
@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize(("size", "stride"), [((7, 7), 1), ((13, 14), 2), ((2, 5), 1), ((9, 30), 1)], ids=str)
def test_pointwise_schedules_on_planes_of_whole_lines(size, stride, place, channels) -> None:
    """Whole vectors are stored into the rest of a plane's last line, and nowhere else; tiles overlap at the end of a
    plane."""
    weight, packed = (
        sparse((10, 12, 1, 1), rate=2.0, groups=2) if place % 2 else sparse((10, 12, 1, 1), rate=3.0, share=2)
    )
    groups, geometry = packed.groups, ConvGeometry((1, 1), (stride, stride))
    x = rng(1).standard_normal((2, 12 * groups, *size)).astype(np.float32)
    want = F.conv2d(torch.from_numpy(x).double(), torch.from_numpy(weight).double(), None, stride, groups=groups)
    added = rng(3).standard_normal(tuple(want.shape)).astype(np.float32)

    def build(b: ProgramBuilder) -> None:
        planes, y = b.planes("planes", x.shape), b.planes("y", added.shape)
        emit_copy(Copy("in", b.input("x", x.shape), planes), b)
        layer = Conv2d("conv", planes, y, packed, None, geometry, groups, b.input("r", added.shape), RELU6)
        offered = family_named("conv-sparse-pointwise").candidates(layer, machine_of(b.isa))
        assert not isinstance(offered, str), offered
        family_named("conv-sparse-pointwise").emit(
            layer,
            replace(
                offered[place % len(offered)].schedule, block=2, channels=min(channels, x.shape[1]), even=place > 2
            ),
            b,
        )
        outside = b.tensor("outside", added.shape)
        emit_copy(Copy("out", y, outside), b)
        b.output("y", outside)

    check(build, [x, added], [RELU6(want + torch.from_numpy(added))])


@pytest.mark.parametrize("channels", [24, 5], ids=["at-once", "blocks"])
@pytest.mark.parametrize("share", [1, 4])
@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize("filters", [2, 3, 4])
def test_pointwise_last_position_is_a_vector_of_filters(filters, even, share, channels) -> None:
    """7x7 is one position more than whole vectors of any width."""
    weight, packed = sparse((12, 24, 1, 1), rate=2.0, share=share)
    x = rng(1).standard_normal((2, 24, 7, 7)).astype(np.float32)
    want = F.conv2d(torch.from_numpy(x).double(), torch.from_numpy(weight).double())
    added = rng(3).standard_normal(tuple(want.shape)).astype(np.float32)

    def build(b: ProgramBuilder) -> None:
        y, family = b.planes("y", want.shape), family_named("conv-sparse-pointwise")
        layer = Conv2d(
            "conv", b.input("x", x.shape), y, packed, None, ConvGeometry((1, 1)), 1, b.input("r", want.shape), RELU6
        )
        offered = family.candidates(layer, machine_of(b.isa))
        assert not isinstance(offered, str), offered
        schedule = next(candidate.schedule for candidate in offered if candidate.schedule.last)
        family.emit(layer, replace(schedule, filters=filters, block=2, channels=channels, even=even), b)
        outside = b.tensor("outside", want.shape)
        emit_copy(Copy("out", y, outside), b)
        b.output("y", outside)
        kernel = b.build().calls[0].kernel
        assert ("shared" in kernel.name) == (share % filters == 0 and filters > 1) or even

    check(build, [x, added], [RELU6(want + torch.from_numpy(added))])


@pytest.mark.parametrize("block", [1, 3], ids=["several-items-a-tile", "one-item-a-tile"])
def test_pointwise_inputs_that_do_not_stay_are_asked_for(block) -> None:
    """48 channels of 56x56 are more than is taken to stay in the L2 cache: the groups of a tile ask for what the next
    one reads, each for a share."""
    weight, packed = sparse((5, 48, 1, 1), rate=3.0)
    x = rng(1).standard_normal((1, 48, 56, 56)).astype(np.float32)
    want = F.conv2d(torch.from_numpy(x).double(), torch.from_numpy(weight).double())

    def build(b: ProgramBuilder) -> None:
        family, y = family_named("conv-sparse-pointwise"), b.tensor("y", want.shape)
        layer = Conv2d("conv", b.input("x", x.shape), y, packed, None, ConvGeometry((1, 1)))
        offered = family.candidates(layer, machine_of(b.isa))
        assert not isinstance(offered, str), offered
        assert all(candidate.schedule.prefetch for candidate in offered)
        family.emit(layer, replace(offered[0].schedule, filters=2, block=block, channels=48), b)
        b.output("y", y)
        (call,) = b.build().calls
        assert call.args["channels_ahead"] == 16

    check(build, [x], [want])


@pytest.mark.parametrize("in_blocks", [False, True])
def test_pointwise_asks_for_outputs(in_blocks) -> None:
    """Each line of a group's outputs and residuals once, and entries in each of three lists."""
    kernel, target = ConvSparsePointwise(2, 7 * 16, Epilogue(residual=True), in_blocks, prefetch=True), ALL_TARGETS[-2]
    text = assembly(kernel, target)
    assert len(re.findall("prefetcht0", text)) >= 2 * 2 * 7 + 3
    assert "prefetch" not in assembly(replace(kernel, prefetch=False), target)


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize(("channels", "together"), [(9, None), (4, None), (4, 2)])
def test_shared_tables_hold_the_weight(channels, together, even) -> None:
    weight, packed = sparse((10, 9, 1, 1), rate=2.0, share=2)
    for size in (1, 2, 3, 4):
        tables, plane, read = shared_tables(packed, size, channels, 7, FLOAT32, even, together), 7, 0
        dense = np.zeros((10, 9), np.float32)
        rows = [divmod(row, tables.groups) for row in range(len(tables.lists))]
        item = together or tables.groups
        rows.sort(key=lambda row: (row[1] // item, row))
        for place in (block * tables.groups + group for block, group in rows):
            at, *counts = tables.lists[place].tolist()
            assert at == read
            assert tables.shared == (size == 2) or even
            for members, count in enumerate(counts, (1 << size) - 1 if tables.shared else 1):
                users = [f for f in range(size) if members >> f & 1]
                entries = tables.entries[read : read + count * (1 + len(users))].reshape(count, 1 + len(users))
                kept = entries[:, 0] // plane
                assert (kept // channels == place // tables.groups).all()
                filters = tables.filters[place % tables.groups * size :][users]
                np.add.at(dense, (filters[:, None], kept), entries[:, 1:].copy().view(np.float32).T)
                read += entries.size
        assert read == tables.entries.size
        last = tables.filters[-size:]
        dense[last] /= np.bincount(last)[last][:, None]  # one that fills the last group up is there more than once
        assert np.array_equal(dense, weight[:, :, 0, 0])
        lengths = list_lengths(packed, size, channels)
        lengths = even_lists(lengths).counts if even else lengths
        assert np.array_equal(lengths[:, [-1]] if tables.shared else lengths[:, 1:], tables.lists[:, 1:])
        assert not even or (lengths[:, 1:-1] == lengths[0, 1:-1]).all()


@FAMILY
def test_filters_without_connections(family) -> None:
    """They still write their bias, through the activation; without any connection at all as well."""
    weight, _ = sparse((6, 4, 3, 3), pattern.DESIGNED)
    weight[2:5] = 0
    for pruned in (weight, np.zeros_like(weight)):
        pair = pruned, fkw.pack(pruned, 1, pattern.DESIGNED)
        conv(
            (1, 4, 5, 5), pair, ConvGeometry((3, 3), padding=(1, 1, 1, 1)), activation=Activation("relu"), family=family
        )
        conv((1, 4, 5, 5), pair, ConvGeometry((3, 3), padding=(1, 1, 1, 1)), bias=False, family=family)


def rebuild(shape, places, channels, taps, weight, inputs) -> np.ndarray:
    """The dense weight from single taps."""
    dense = np.zeros((shape[0], shape[1], shape[2] * shape[3]), np.float32)
    np.add.at(dense, (places[:, None], (channels % inputs)[:, None], taps), weight)
    return dense.reshape(shape)


@pytest.mark.parametrize("most_taps", [1, 3, 9])
@pytest.mark.parametrize("share", [1, 2, 4])
def test_tables_hold_the_weight(share, most_taps) -> None:
    weight, packed = sparse((16, 5, 3, 3), EIGHT, rate=2.0, share=share)
    s = scatter_tables(packed, 6, 2, most_taps)
    lengths = np.diff(s.segments[:, 2])
    channel, row = (np.repeat(s.segments[:-1, field], lengths) for field in (0, 1))
    block = np.repeat(np.repeat(np.arange(len(s.blocks) - 1), np.diff(s.blocks[:, 1])), lengths)
    assert (lengths > 0).all()
    assert np.array_equal(
        rebuild(weight.shape, packed.reorder[block * 6 + s.slots], channel, s.patterns[row], s.weight, 5), weight
    )

    g = gather_tables(packed, most_taps)
    segment = np.repeat(np.arange(len(g.segments) - 1), np.diff(g.segments))
    group, row = segment // len(g.patterns), segment % len(g.patterns)
    for member in range(share):
        places = packed.reorder[group * share + member]
        part = rebuild(weight.shape, places, g.channels, g.patterns[row], g.weight[:, :, member], 5)
        assert np.array_equal(part[np.unique(places)], weight[np.unique(places)])


def test_segments_of_like_length_are_neighbours() -> None:
    """What makes the branch at the end of a segment predictable."""
    _, packed = sparse((64, 64, 3, 3), EIGHT, rate=3.6)
    lengths = np.diff(scatter_tables(packed, 64, 16, 9).segments[:, 2])
    assert (np.diff(lengths) != 0).sum() < 4 * 12


def layer_of(packed: fkw.FKW, size: int) -> Conv2d:
    filters, channels, kernel, _ = packed.shape
    pad = kernel // 2
    b = ProgramBuilder("cost", isa_named("avx512"))
    x, y = b.input("x", (1, channels, size, size)), b.tensor("y", (1, filters, size, size))
    return Conv2d("conv", x, y, packed, None, ConvGeometry((kernel, kernel), padding=(pad, pad, pad, pad)))


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_cost(machine) -> None:
    """Fewer connections cost less, and sharing no more; at 8 times fewer weights a sparse kernel wins, near all single
    weights it gains little."""

    def cost(patterns, rate, kernel=3, share=1):
        layer = layer_of(sparse((64, 64, kernel, kernel), patterns, rate, share)[1], 28)
        return min(
            found[1] for name in SPARSE if not isinstance(found := cheapest(family_named(name), layer, machine), str)
        )

    def dense(kernel):
        weight, packed = sparse((64, 64, kernel, kernel), None, 1.0)
        found = cheapest(family_named("conv-dense"), replace(layer_of(packed, 28), weight=weight), machine)
        assert not isinstance(found, str)
        return found[1]

    assert cost(EIGHT, 3.6) < cost(EIGHT, 2.0) < cost(EIGHT, 1.0)
    # Tiles of one filter are larger: sharing gains little. (Zen 3: 0.63 ms and 0.56 of 128 channels at 28x28.)
    assert cost(EIGHT, 3.6, share=4) < (1.05 if machine.name == "zen3" else 1.02) * cost(EIGHT, 3.6)
    assert cost(pattern.DESIGNED, 3.6) < dense(3) / 2
    assert cost(None, 1.2, kernel=1) > 0.8 * dense(1)


@pytest.mark.parametrize("name", SPARSE)
def test_weight_must_be_packed(name) -> None:
    weight, packed = sparse((4, 4, 3, 3), EIGHT)
    with pytest.raises(PccError, match=r"layer conv: .* FKW"):
        family_named(name).candidates(replace(layer_of(packed, 5), weight=weight), machine_of(isa_named("avx2")))


def test_every_family_is_tested() -> None:
    assert {name for name, family in families().items() if (family.format, family.layer) == ("fkw", Conv2d)} == set(
        SPARSE
    )


MULTIPLY = r"\b(?:vfmadd\w+ps|fmla)\b"
BY_LANE = r"fmla\s+v\d+\.4s, v\d+\.4s, v\d+\.s\[\d\]"


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
@pytest.mark.parametrize("share", [1, 2, 4])
def test_inner_loop_of_gather(target: Target, share: int) -> None:
    """In the widest tiles that plans use: one multiply-add for each accumulator and tap; nothing touches the stack; no
    calls."""
    lanes = LANES[target.isa]
    vectors = isa_named(target.isa).registers // 2 // share
    for taps in (4, MOST_TAPS):
        text = assembly(ConvSparseGather(taps, vectors * lanes, share, Epilogue()), target)
        assert external_calls(text) == set()
        loop = inner_loop(text)
        assert len(re.findall(MULTIPLY, loop)) == taps * vectors * share
        assert not re.search(r"[yz]mm\d+, [^%]*\(%r[sb]p|[yz]mm\d+.*spill|q\d+, .*\[sp", loop, re.IGNORECASE)
        if target.isa == "neon" and taps == 4:
            assert len(re.findall(BY_LANE, loop)) == taps * vectors * share


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
@pytest.mark.parametrize("taps", [3, 4, 9])
def test_inner_loop_of_scatter(target: Target, taps: int) -> None:
    """In the widest tiles that plans use inputs stay in registers: each accumulator is loaded and stored once, and only
    weights are read besides."""
    lanes = LANES[target.isa]
    vectors = min(4, INPUT_REGISTERS[isa_named(target.isa).registers] // taps)
    text = assembly(ConvSparseScatter(taps, vectors * lanes, 64, Epilogue()), target)
    assert external_calls(text) == set()
    loop = inner_loop(text)
    assert len(re.findall(MULTIPLY, loop)) == taps * vectors
    if target.isa == "neon":
        stores, loads = (re.findall(rf"\b{op}(?:p|u?r)\s+(q\d+)(?:, (q\d+))?", loop) for op in ("st", "ld"))
        assert len([q for pair in stores for q in pair if q]) == vectors
        assert len([q for pair in loads for q in pair if q]) <= vectors + -(-taps // 4)
        if taps == 4:
            assert len(re.findall(BY_LANE, loop)) == taps * vectors
    else:
        assert len(re.findall(r"vmovups\s+%[yz]mm\d+, [^%]*\(", loop)) == vectors
        assert len(re.findall(r"vbroadcastss\s+[^%]*\(", loop)) == taps
        assert len(re.findall(r"v(?:mov|fmadd)\w+ps\s+[^%]*\([^)]*\), %[yz]mm", loop)) <= vectors


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
def test_loops_of_interleaved(target: Target) -> None:
    """The code of each pattern: a multiply-add for each accumulator and tap, no more loads than distinct lines and
    weights, no stack, no stores, no calls."""
    isa = isa_named(target.isa)
    rows, columns = {"avx512": (3, 7), "avx2": (2, 5), "neon": (4, 7)}[isa.name]
    patterns = tuple(tuple((tap // 3, tap % 3) for tap in taps) for taps in EIGHT.tolist())
    text = assembly(
        InterleavedTile(rows, columns, 1, patterns, (1, 1), columns + 2, isa.lanes(FLOAT32), Epilogue(), prefetch=True),
        target,
    )
    assert external_calls(text) == set()
    assert len(re.findall(r"\b(?:prefetch\w*|prfm)\b", text)) == rows * isa.lanes(FLOAT32)
    loops = [block for block in loop_blocks(text) if len(re.findall(MULTIPLY, block)) == 4 * rows * columns]
    assert len(loops) == len(patterns)
    for loop, taps in zip(loops, patterns, strict=True):
        lines = len(users_of_lines(taps, rows, columns, (1, 1)))
        if isa.name == "neon":
            assert len(re.findall(BY_LANE, loop)) == 4 * rows * columns
            loaded = [q for pair in re.findall(r"\bld(?:p|u?r)\s+(q\d+)(?:, (q\d+))?", loop) for q in pair if q]
            assert len(loaded) <= lines + 1
            assert not re.search(r"\bst(?:p|u?r)\s|\[sp", loop)
        else:
            assert len(re.findall(r"vmovups\s+[^%]*\(|vfmadd\w+ps\s+[^%]*\(", loop)) <= lines
            assert len(re.findall(r"vbroadcastss", loop)) <= 4
            assert not re.search(r"\(%rsp", loop)


@pytest.mark.parametrize(("cpu", "pairs"), [("cortex-a76", True), ("cortex-a55", False), ("cortex-a53", False)])
def test_pairs_of_vectors_are_loaded_where_that_is_faster(cpu: str, pairs: bool) -> None:
    target = target_named("aarch64-linux", cpu)
    taps = tuple((tap // 3, tap % 3) for tap in EIGHT[0].tolist())
    text = assembly(InterleavedTile(2, 4, 1, (taps,), (1, 1), 9, 4, Epilogue()), target)
    assert bool(re.search(r"\bldp\s+q", text)) == pairs == (MACHINES[cpu].load_pair_reach > 0)


def test_loads_of_lines() -> None:
    """Pairs of neighbours within reach; the rest one by one."""
    assert _loads(((0, 0), (0, 1), (0, 2)), pitch=9, reach=64) == 2
    assert _loads(((0, 0), (0, 2), (1, 0)), pitch=9, reach=64) == 3
    assert _loads(((0, 0), (0, 1), (3, 0), (3, 1)), pitch=30, reach=64) == 3
    assert _loads(((0, 0), (0, 1)), pitch=9, reach=0) == 2


@arm64
def test_arm64() -> None:
    """All forms, several geometries and structures in one program, on emulated cores."""
    cases = [
        ((9, 5, 3, 3), EIGHT, 1, ConvGeometry((3, 3), padding=(1, 1, 1, 1))),
        ((8, 5, 3, 3), pattern.DESIGNED, 4, ConvGeometry((3, 3), (2, 2), (0, 1, 2, 1))),
        ((8, 5, 1, 1), None, 2, ConvGeometry((1, 1))),
        ((6, 5, 5, 5), None, 1, ConvGeometry((5, 5), (1, 1), (4, 4, 4, 4), (2, 2))),
    ]
    b, want = ProgramBuilder("arm64", isa_named("neon")), []
    value = rng(1).standard_normal((2, 5, 9, 13)).astype(np.float32)
    x = b.input("x", value.shape)
    for i, (shape, patterns, share, geometry) in enumerate(cases):
        weight, packed = sparse(shape, patterns, share=share)
        top, left, bottom, right = geometry.padding
        padded = F.pad(torch.from_numpy(value).double(), (left, right, top, bottom))
        expected = (
            F.conv2d(padded, torch.from_numpy(weight).double(), None, geometry.stride, 0, geometry.dilation)
            .relu()
            .numpy()
        )
        for family in FORMS:
            want.append(expected)
            y = b.tensor(f"y{i}_{family}", expected.shape)
            emit(Conv2d(f"conv{i}_{family}", x, y, packed, None, geometry, activation=Activation("relu")), b, family)
            b.output(y.buffer, y)
    for cpu, outputs in run_emulated(b.build(), [value]).items():
        for output, expected in zip(outputs, want, strict=True):
            error = np.abs(output.reshape(expected.shape) - expected).max() / np.abs(expected).max()
            assert error <= 1e-5, f"{cpu}: relative error {error:g}"


def test_kernel_text(golden) -> None:
    """The TIR of one small kernel, to read."""
    compiled = compile_kernel(
        ConvSparseScatter(4, 8, 16, Epilogue(residual=True, activation=Activation("relu"))),
        target_named("aarch64-linux"),
    )
    golden(compiled.texts["tir"].read_text(), "conv_sparse_scatter.tir")
