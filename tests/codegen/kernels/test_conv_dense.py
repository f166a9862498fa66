"""Dense convolution against float64 PyTorch over odd shapes, and the instructions of its inner loop."""

import re
from dataclasses import replace
from itertools import product
from math import prod

import numpy as np
import pytest
import torch

from pcc.codegen.family import cheapest, family_named
from pcc.codegen.isa import ISAS, Isa
from pcc.codegen.kernels.conv_dense import FAMILY, FILTERS, POSITIONS, STEPS
from pcc.codegen.kernels.copy import emit_copy
from pcc.codegen.kernels.dense_filters import ConvFilters
from pcc.codegen.kernels.dense_positions import ConvPositions
from pcc.codegen.kernels.dense_work import split_work
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.layers import Conv2d, ConvGeometry, Copy
from pcc.codegen.program import ProgramBuilder
from pcc.dtype import FLOAT32
from pcc.ir.activation import IDENTITY, Activation
from pcc.target import Target, target_named

from .support import (
    ALL_TARGETS,
    LANES,
    X86_TARGETS,
    assembly,
    check,
    emit_by,
    external_calls,
    inner_loop,
    machine_of,
    padded_view,
    rng,
)

RELU = Activation("relu")

CASES = [
    # shape, filters, kernel, stride, padding (top, left, bottom, right), dilation, groups
    ((1, 3, 7, 7), 8, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    ((2, 17, 13, 13), 19, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 1),
    ((1, 1, 9, 1), 3, (3, 1), (1, 1), (1, 0, 1, 0), (1, 1), 1),
    ((1, 3, 20, 23), 5, (7, 7), (2, 2), (3, 3, 3, 3), (1, 1), 1),
    ((2, 16, 7, 7), 17, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    ((1, 6, 12, 9), 4, (1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 2),
    ((1, 8, 13, 40), 8, (3, 3), (1, 1), (2, 2, 2, 2), (2, 2), 4),
    ((1, 3, 11, 13), 9, (3, 2), (3, 3), (0, 3, 2, 1), (1, 1), 3),
    ((1, 4, 8, 10), 7, (2, 5), (1, 2), (1, 2, 0, 3), (1, 1), 1),
    ((1, 3, 1, 70), 16, (1, 3), (1, 1), (0, 1, 0, 1), (1, 1), 1),
]


def conv(
    shape,
    filters,
    kernel,
    stride,
    padding,
    dilation,
    groups,
    *,
    residual: bool = False,
    activation: Activation = IDENTITY,
    strided: bool = False,
) -> None:
    random = rng()
    geometry = ConvGeometry(kernel, stride, padding, dilation)
    out = (shape[0], filters, *geometry.output_size(*shape[2:]))
    x = random.standard_normal(shape, np.float32)
    addend = random.standard_normal(out, np.float32)
    weight = random.standard_normal((filters, shape[1] // groups, *kernel), np.float32)
    bias = random.standard_normal(filters, np.float32) if not strided else None

    def build(b: ProgramBuilder) -> None:
        inputs = b.input("x", shape), b.input("r", out)
        y = padded_view(b, "y", out) if strided else b.tensor("y", out)
        layer = Conv2d(
            "conv", inputs[0], y, weight, bias, geometry, groups, inputs[1] if residual else None, activation
        )
        emit_by("conv-dense", layer, b)
        if strided:  # a second convolution reads the strided output where it lies
            eye = np.eye(filters, dtype=np.float32)[:, :, None, None]
            copied = b.tensor("z", out)
            emit_by("conv-dense", Conv2d("copy", y, copied, eye, None, ConvGeometry((1, 1))), b)
            y = copied
        b.output("out", y)

    top, left, bottom, right = padding
    padded = torch.nn.functional.pad(torch.from_numpy(x).double(), (left, right, top, bottom))
    want = torch.nn.functional.conv2d(
        padded,
        torch.from_numpy(weight).double(),
        None if bias is None else torch.from_numpy(bias).double(),
        stride,
        0,
        dilation,
        groups,
    )
    check(build, [x, addend], [activation(want + torch.from_numpy(addend).double() if residual else want)])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_pytorch(case) -> None:
    conv(*case)


@pytest.mark.parametrize("target", X86_TARGETS, ids=lambda target: target.cpu)
@pytest.mark.parametrize("tile", [0, 1], ids=["first", "second"])
@pytest.mark.parametrize(("width", "residual"), [(75, False), (96, True), (131, False)])
def test_tiles_that_end_with_a_row(width: int, residual: bool, tile: int, target: Target) -> None:
    """The last tile of a row begins early; filters are not a multiple of the tile's."""
    random, geometry, activation = rng(), ConvGeometry((3, 3), (2, 2), (1, 1, 1, 1)), Activation("prelu")
    x = random.standard_normal((2, 3, 9, 2 * width), np.float32)
    weight, bias = random.standard_normal((13, 3, 3, 3), np.float32), random.standard_normal(13, np.float32)
    parameter, added = random.standard_normal(13, np.float32), random.standard_normal((2, 13, 5, width), np.float32)

    def build(b: ProgramBuilder) -> None:
        inputs, y = (b.input("x", x.shape), b.input("added", added.shape)), b.tensor("y", added.shape)
        residual_of = inputs[1] if residual else None
        layer = Conv2d("conv", inputs[0], y, weight, bias, geometry, 1, residual_of, activation, parameter)
        found = FAMILY.candidates(layer, machine_of(b.isa))
        by_rows = [schedule for candidate in found if (schedule := candidate.schedule).by_rows]
        FAMILY.emit(layer, by_rows[min(tile, len(by_rows) - 1)], b)
        b.output("y", y)

    x64, weight64, bias64 = (torch.from_numpy(a).double() for a in (x, weight, bias))
    sums = torch.nn.functional.conv2d(x64, weight64, bias64, stride=2, padding=1)
    want = activation(
        sums + torch.from_numpy(added).double() * residual, torch.from_numpy(parameter).double()[:, None, None]
    )
    check(build, [x, added], [want], targets=[target])


@pytest.mark.parametrize("case", CASES[:5], ids=str)
def test_epilogue(case) -> None:
    conv(*case, residual=True, activation=RELU)


@pytest.mark.parametrize("case", CASES[:3], ids=str)
def test_strided_output(case) -> None:
    conv(*case, strided=True)


SCHEDULES = [
    # shape, filters, kernel, stride, padding, groups: runs of positions that overlap, blocks of filters that are not
    # full, rows with junk between them
    ((2, 5, 7, 7), 35, 1, 1, 0, 1),
    ((1, 6, 13, 9), 49, 3, 1, 1, 1),
    ((1, 8, 17, 17), 66, 1, 2, 0, 2),
    ((1, 3, 12, 40), 9, 3, 2, 1, 1),
]


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("case", SCHEDULES, ids=str)
def test_every_schedule_agrees_with_pytorch(case, residual: bool) -> None:
    shape, filters, kernel, stride, padding, groups = case
    random, geometry = rng(), ConvGeometry((kernel, kernel), (stride, stride), (padding,) * 4)
    x, weight = (
        random.standard_normal(shape, np.float32),
        random.standard_normal((filters, shape[1] // groups, kernel, kernel), np.float32),
    )
    size = shape[0], filters, *geometry.output_size(*shape[2:])
    bias, addend = random.standard_normal(filters, np.float32), random.standard_normal(size, np.float32)
    inputs, weights, biases = (torch.from_numpy(part).double() for part in (x, weight, bias))
    want = torch.nn.functional.conv2d(inputs, weights, biases, stride, padding, 1, groups)
    want = RELU(want + torch.from_numpy(addend).double() if residual else want)
    for target in X86_TARGETS:
        scratch = ProgramBuilder("count", ISAS[target.isa])
        counted = Conv2d("conv", scratch.input("x", shape), scratch.planes("y", size), weight, bias, geometry, groups)
        count = len(FAMILY.candidates(counted, machine_of(scratch.isa)))

        def build(b: ProgramBuilder, count: int = count) -> None:
            views = b.input("x", shape), b.input("r", size)
            for number in range(count):
                y, z = b.planes(f"y{number}", size), b.tensor(f"z{number}", size)
                b.layer = f"conv{number}"
                layer = Conv2d(
                    b.layer, views[0], y, weight, bias, geometry, groups, views[1] if residual else None, RELU
                )
                emit_by("conv-dense", layer, b, number)
                emit_copy(Copy(f"copy{number}", y, z), b)
                b.output(f"out{number}", z)

        check(build, [x, addend], [want] * count, targets=[target])


@pytest.mark.parametrize("prefetch", [False, True])
@pytest.mark.parametrize("case", [((2, 40, 29, 31), 70, 1), ((1, 9, 12, 25), 35, 2)], ids=str)
def test_weights_that_stay(case, prefetch: bool) -> None:
    """Several runs of tiles, and of blocks; asking for tensors ahead, which else only large ones get."""
    shape, filters, stride = case
    random, geometry = rng(), ConvGeometry((3, 3), (stride, stride), (1, 1, 1, 1))
    x, weight = random.standard_normal(shape, np.float32), random.standard_normal((filters, shape[1], 3, 3), np.float32)
    bias, size = random.standard_normal(filters, np.float32), (shape[0], filters, *geometry.output_size(*shape[2:]))

    def build(b: ProgramBuilder) -> None:
        layer = Conv2d("conv", b.input("x", shape), b.tensor("y", size), weight, bias, geometry, 1, None, RELU)
        found = [each.schedule for each in FAMILY.candidates(layer, machine_of(b.isa)) if each.schedule.weights_stay]
        FAMILY.emit(layer, replace(found[0], prefetch=prefetch), b)
        b.output("y", layer.y)

    x64, weight64, bias64 = (torch.from_numpy(part).double() for part in (x, weight, bias))
    sums = torch.nn.functional.conv2d(x64, weight64, bias64, stride, 1)
    check(build, [x], [RELU(sums)], targets=[target_named("x86_64-linux", "x86-64-v3")])


@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_cost_grows_with_the_work(case, isa: Isa) -> None:
    """No less than a multiply-add for each vector of products, and more for more images, filters and channels."""
    shape, filters, kernel, stride, padding, dilation, groups = case
    geometry = ConvGeometry(kernel, stride, padding, dilation)

    def cost(images: int, filters: int, channels: int) -> float:
        size = (images, channels, *shape[2:])
        outputs = images * filters * prod(geometry.output_size(*shape[2:]))
        b = ProgramBuilder("test", isa)
        weight = np.zeros((filters, channels // groups, *kernel), np.float32)
        layer = Conv2d(
            "conv",
            b.input("x", size),
            b.tensor("y", (images, filters, *geometry.output_size(*shape[2:]))),
            weight,
            None,
            geometry,
            groups,
        )
        found = cheapest(family_named("conv-dense"), layer, machine_of(isa))
        assert not isinstance(found, str)
        multiplies = found[0].work.fma
        assert multiplies >= outputs * channels // groups * prod(kernel) / isa.lanes(FLOAT32)
        return found[1]

    images, channels = shape[:2]
    once = cost(images, filters, channels)
    assert cost(3 * images, filters, channels) == pytest.approx(3 * once)
    assert cost(images, 16 * filters, channels) > 1.5 * once  # the copy of the input is made once
    assert cost(images, filters, 16 * channels) > 2 * once


KERNELS = {
    isa: [
        *(
            ConvPositions(filters, vectors, lanes, Epilogue(), prefetch=isa != "neon")
            for filters, vectors in POSITIONS[4 * lanes]
        ),
        *(
            ConvFilters(positions, vectors, lanes, Epilogue(), prefetch=isa != "neon")
            for positions, vectors in FILTERS[4 * lanes]
        ),
    ]
    for isa, lanes in LANES.items()
}
"""The largest tiles of each kind."""


@pytest.mark.parametrize(
    "epilogue",
    [Epilogue(), Epilogue(activation=RELU), Epilogue(residual=True, activation=RELU)],
    ids=lambda epilogue: epilogue.symbol,
)
@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
def test_inner_loop(target: Target, epilogue: Epilogue) -> None:
    """One multiply-add for each accumulator, none of them spilled, and no calls."""
    for kernel in (replace(kernel, epilogue=epilogue) for kernel in KERNELS[target.isa]):
        text = assembly(kernel, target)
        assert external_calls(text) == set()
        loop = inner_loop(text)
        sums = kernel.vectors * (kernel.filters if isinstance(kernel, ConvPositions) else kernel.positions)
        assert len(re.findall(r"\b(?:vfmadd\w+ps|fmla)\b", loop)) == sums
        assert not re.search(r"^\s+v.*\(%rsp\)|\bq\d+, \[sp", loop, re.MULTILINE), kernel.name
        if target.isa == "neon":
            assert len(re.findall(r"fmla\s+v\d+\.4s, v\d+\.4s, v\d+\.s\[\d\]", loop)) == sums


@pytest.mark.parametrize("kernel", KERNELS["neon"], ids=lambda kernel: kernel.name)
def test_steps_written_out(kernel: ConvPositions | ConvFilters) -> None:
    """For a core that executes out of order: all steps' multiply-adds, little beside them, and none spilled."""
    loop = inner_loop(assembly(replace(kernel, steps=STEPS), target_named("aarch64-linux", "cortex-a76")))
    sums = kernel.vectors * (kernel.filters if isinstance(kernel, ConvPositions) else kernel.positions)
    assert len(re.findall(r"\bfmla\b", loop)) == STEPS * sums
    assert not re.search(r"\bq\d+, \[sp", loop)
    assert len(re.findall(r"^\s+[a-z]", loop, re.MULTILINE)) <= 1.4 * STEPS * sums


@pytest.mark.parametrize("prefetch", [False, True])
def test_steps_written_out_on_avx2(prefetch: bool) -> None:
    """For each multiply-add one instruction beside it at most: weights and inputs, and little that asks for them."""
    for kernel in (kernel for kernel in KERNELS["avx2"] if isinstance(kernel, ConvFilters)):
        kernel = replace(kernel, steps=STEPS, weights_stay=True, prefetch=prefetch)
        loop = inner_loop(assembly(kernel, target_named("x86_64-linux", "x86-64-v3")))
        sums = STEPS * kernel.vectors * kernel.positions
        assert len(re.findall(r"\bvfmadd\w+ps\b", loop)) == sums
        assert len(re.findall(r"\bprefetch", loop)) == STEPS * prefetch
        assert not re.search(r"^\s+v.*\(%rsp\)", loop, re.MULTILINE), kernel.name
        assert len(re.findall(r"^\s+[a-z]", loop, re.MULTILINE)) <= 2.1 * sums


@pytest.mark.parametrize("weights_stay", [False, True])
def test_a_row_whose_last_tiles_overlap_is_several_items(weights_stay: bool) -> None:
    counts = set()
    for tiles, cycles in product(range(2, 40), (100, 20_000, 200_000)):
        split, _ = split_work(1, 1, 3, tiles, 64, 16, cycles, together=tiles, weights_stay=weights_stay)
        assert tiles - (split["tile_chunks"] - 1) * split["tiles_per_item"] >= 2
        counts.add(split["tile_chunks"])
    assert max(counts) > 10 or weights_stay
    assert len(counts) > 1
