"""Sparse convolutions: against float64 PyTorch over odd shapes, forms, structures and strides of memory; what their inner loops are made of."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pcc.codegen.kernels.conv_dense import cost_conv_dense
from pcc.codegen.kernels.conv_sparse import cost_conv_sparse, emit_conv_sparse
from pcc.codegen.kernels.conv_sparse_gather import ConvSparseGather
from pcc.codegen.kernels.conv_sparse_scatter import ConvSparseScatter
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.sparse_plan import MACHINES, MOST_GATHER_TAPS, SparsePlan
from pcc.codegen.kernels.sparse_tables import gather_tables, scatter_tables
from pcc.codegen.layers import Conv2d, ConvGeometry
from pcc.codegen.objects import compile_kernel
from pcc.codegen.program import ProgramBuilder, View
from pcc.errors import PccError
from pcc.ir.activation import IDENTITY, Activation
from pcc.sparsity import fkw, joint, pattern
from pcc.target import Target, target_named
from tests.arm64 import arm64, run_emulated
from tests.codegen.kernels.support import ALL_TARGETS, LANES, assembly, check, external_calls, inner_loop, rng

EIGHT = np.array([[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8], [0, 2, 4, 8], [1, 3, 4, 5], [1, 4, 6, 7], [3, 4, 5, 8]], np.int32)
SCATTER = SparsePlan("scatter", size=2, block=5, most_taps=9, room=8)
GATHER = SparsePlan("gather", size=3, block=2, most_taps=4)
"""Plans with sizes in vectors, small enough that little layers have several tiles and blocks."""
PLANS = pytest.mark.parametrize("plan", [None, SCATTER, GATHER], ids=["chosen", "scatter", "gather"])
RELU6 = Activation("clip", (0.0, 6.0))


def sparse(shape, patterns=None, rate=2.0, share=1, groups=1) -> tuple[np.ndarray, fkw.FKW]:
    """A pruned weight, dense and packed."""
    dense = rng(0).standard_normal(shape).astype(np.float32)
    cut = joint.project(dense, patterns, rate, share=share, groups=groups)
    return cut.weight, fkw.pack(cut.weight, groups, patterns, share, cut.order)


def conv(shape, pair, geometry, *, groups=1, bias=True, residual=False, activation=IDENTITY, plan=None, strided=False) -> None:
    """Checks one layer on an input of ``shape``; ``pair`` is its weight, dense and packed. ``strided``: into the middle channels of a larger tensor."""
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
        made = Conv2d("conv", x_view, y, packed, biases, geometry, groups, r if residual else None, activation)
        emit_conv_sparse(made, b, plan and replace(plan, size=plan.size * b.lanes))

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


@PLANS
@pytest.mark.parametrize(("width", "channels"), [(1, 3), (7, 17), (13, 1), (13, 6), (30, 3)])
def test_patterns_over_widths(plan, width, channels) -> None:
    pair = sparse((13, channels, 3, 3), EIGHT, rate=1.5 if channels > 1 else 1.0)
    conv((1, channels, 9, width), pair, ConvGeometry((3, 3), padding=(1, 1, 1, 1)), plan=plan)


@PLANS
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
def test_patterns_over_geometries(plan, geometry) -> None:
    conv((2, 5, 11, 13), sparse((6, 5, 3, 3), pattern.DESIGNED), geometry, plan=plan)


@PLANS
@pytest.mark.parametrize("kernel", [(1, 1), (2, 3), (3, 3), (5, 5), (1, 7)], ids=str)
def test_connectivity_over_kernel_sizes(plan, kernel) -> None:
    """All taps of a kernel; long kernels are cut into parts."""
    conv((1, 6, 9, 13), sparse((9, 6, *kernel), rate=3.0), ConvGeometry(kernel, padding=(0, 1, 2, 1)), plan=plan)


@PLANS
@pytest.mark.parametrize("share", [1, 2, 4])
def test_filter_groups(plan, share) -> None:
    conv((1, 7, 8, 7), sparse((12, 7, 3, 3), EIGHT, rate=3.6, share=share), ConvGeometry((3, 3), padding=(1, 1, 1, 1)), plan=plan)


@PLANS
@pytest.mark.parametrize(("groups", "share"), [(2, 1), (2, 2), (3, 4), (12, 1)])
def test_grouped_convolutions(plan, groups, share) -> None:
    pair = sparse((12, 2, 3, 3), EIGHT, rate=1.5, share=share, groups=groups)
    conv((2, 2 * groups, 7, 7), pair, ConvGeometry((3, 3), (2, 2), (1, 1, 1, 1)), groups=groups, plan=plan)


@PLANS
@pytest.mark.parametrize("strided", [False, True], ids=["whole", "strided"])
def test_epilogue(plan, strided) -> None:
    pair = sparse((7, 4, 3, 3), pattern.DESIGNED)
    conv((1, 4, 6, 19), pair, ConvGeometry((3, 3), padding=(1, 1, 1, 1)), residual=True, activation=RELU6, plan=plan, strided=strided)


@PLANS
def test_planes_without_junk(plan) -> None:
    """Stride 1 and no padding: the input is read where it is and stored as one run."""
    conv((2, 9, 5, 7), sparse((8, 9, 1, 1), rate=2.0), ConvGeometry((1, 1)), residual=True, plan=plan)


@PLANS
def test_filters_without_kernels(plan) -> None:
    """They still write their bias, through the activation; without any kernel at all as well."""
    weight, _ = sparse((6, 4, 3, 3), pattern.DESIGNED)
    weight[2:5] = 0
    for pruned in (weight, np.zeros_like(weight)):
        pair = pruned, fkw.pack(pruned, 1, pattern.DESIGNED)
        conv((1, 4, 5, 5), pair, ConvGeometry((3, 3), padding=(1, 1, 1, 1)), activation=Activation("relu"), plan=plan)
        conv((1, 4, 5, 5), pair, ConvGeometry((3, 3), padding=(1, 1, 1, 1)), bias=False, plan=plan)


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
    assert np.array_equal(rebuild(weight.shape, packed.reorder[block * 6 + s.slots], channel, s.patterns[row], s.weight, 5), weight)

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
    b = ProgramBuilder("cost", 16)
    x, y = b.input("x", (1, channels, size, size)), b.tensor("y", (1, filters, size, size))
    return Conv2d("conv", x, y, packed, None, ConvGeometry((kernel, kernel), padding=(pad, pad, pad, pad)))


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_cost(lanes) -> None:
    """Fewer kernels and more sharing cost less; where (nearly) everything is kept the dense kernel wins, at 8 times fewer weights the sparse one."""

    def cost(patterns, rate, kernel=3, share=1):
        return cost_conv_sparse(layer_of(sparse((64, 64, kernel, kernel), patterns, rate, share)[1], 28), lanes)

    def dense(kernel):
        weight, packed = sparse((64, 64, kernel, kernel), None, 1.0)
        return cost_conv_dense(replace(layer_of(packed, 28), weight=weight), lanes)

    assert cost(EIGHT, 3.6) < cost(EIGHT, 2.0) < cost(EIGHT, 1.0)
    assert cost(EIGHT, 3.6, share=4) < cost(EIGHT, 3.6)
    assert cost(pattern.DESIGNED, 3.6) < dense(3) / 2
    assert cost(None, 1.0) > dense(3)
    assert cost(None, 1.2, kernel=1) > dense(1)


def test_weight_must_be_packed() -> None:
    weight, packed = sparse((4, 4, 3, 3), EIGHT)
    with pytest.raises(PccError, match=r"layer conv: .* FKW"):
        cost_conv_sparse(replace(layer_of(packed, 5), weight=weight), 8)


MULTIPLY = r"\b(?:vfmadd\w+ps|fmla)\b"
BY_LANE = r"fmla\s+v\d+\.4s, v\d+\.4s, v\d+\.s\[\d\]"


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
@pytest.mark.parametrize("group", [1, 2, 4])
def test_inner_loop_of_gather(target: Target, group: int) -> None:
    """In the widest tiles that plans use: one multiply-add for each accumulator and tap; nothing touches the stack; no calls."""
    lanes = LANES[target.isa]
    vectors = MACHINES[lanes].sums // group
    for taps in (4, MOST_GATHER_TAPS):
        text = assembly(ConvSparseGather(taps, vectors * lanes, group, Epilogue()), target)
        assert external_calls(text) == set()
        loop = inner_loop(text)
        assert len(re.findall(MULTIPLY, loop)) == taps * vectors * group
        assert not re.search(r"[yz]mm\d+, [^%]*\(%r[sb]p|[yz]mm\d+.*spill|q\d+, .*\[sp", loop, re.IGNORECASE)
        if target.isa == "neon" and taps == 4:
            assert len(re.findall(BY_LANE, loop)) == taps * vectors * group


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
@pytest.mark.parametrize("taps", [3, 4, 9])
def test_inner_loop_of_scatter(target: Target, taps: int) -> None:
    """In the widest tiles that plans use inputs stay in registers: each accumulator is loaded and stored once, and only weights are read besides."""
    lanes = LANES[target.isa]
    vectors = min(4, MACHINES[lanes].inputs // taps)
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


@arm64
def test_arm64() -> None:
    """Both forms, several geometries and structures in one program, on emulated cores."""
    cases = [
        ((9, 5, 3, 3), EIGHT, 1, ConvGeometry((3, 3), padding=(1, 1, 1, 1))),
        ((8, 5, 3, 3), pattern.DESIGNED, 4, ConvGeometry((3, 3), (2, 2), (0, 1, 2, 1))),
        ((8, 5, 1, 1), None, 2, ConvGeometry((1, 1))),
        ((6, 5, 5, 5), None, 1, ConvGeometry((5, 5), (1, 1), (4, 4, 4, 4), (2, 2))),
    ]
    b, want = ProgramBuilder("arm64", LANES["neon"]), []
    value = rng(1).standard_normal((2, 5, 9, 13)).astype(np.float32)
    x = b.input("x", value.shape)
    for i, (shape, patterns, share, geometry) in enumerate(cases):
        weight, packed = sparse(shape, patterns, share=share)
        top, left, bottom, right = geometry.padding
        padded = F.pad(torch.from_numpy(value).double(), (left, right, top, bottom))
        expected = F.conv2d(padded, torch.from_numpy(weight).double(), None, geometry.stride, 0, geometry.dilation).relu().numpy()
        for plan in (SCATTER, GATHER):
            want.append(expected)
            y = b.tensor(f"y{i}_{plan.form}", expected.shape)
            layer = Conv2d(f"conv{i}_{plan.form}", x, y, packed, None, geometry, activation=Activation("relu"))
            emit_conv_sparse(layer, b, replace(plan, size=plan.size * b.lanes))
            b.output(y.buffer, y)
    for cpu, outputs in run_emulated(b.build(), [value]).items():
        for output, expected in zip(outputs, want, strict=True):
            error = np.abs(output.reshape(expected.shape) - expected).max() / np.abs(expected).max()
            assert error <= 1e-5, f"{cpu}: relative error {error:g}"


def test_kernel_text(golden) -> None:
    """The TIR of one small kernel, to read."""
    compiled = compile_kernel(ConvSparseScatter(4, 8, 16, Epilogue(residual=True, activation=Activation("relu"))), target_named("aarch64-linux"))
    golden(compiled.texts["tir"].read_text(), "conv_sparse_scatter.tir")
