"""Copies and fills between views of any strides."""

import itertools

import numpy as np
import pytest
import torch

from pcc.codegen.isa import isa_named
from pcc.codegen.kernels.copy import CopyRows, FillRows, emit_copy, emit_fill
from pcc.codegen.kernels.nest import nest_of
from pcc.codegen.layers import Copy, Fill
from pcc.codegen.program import ProgramBuilder, View, contiguous_strides
from pcc.target import Target

from .support import ALL_TARGETS, assembly, check, external_calls, rng


def sub_view(view: View, starts: tuple[int, ...], shape: tuple[int, ...]) -> View:
    return View(
        view.buffer,
        shape,
        view.strides,
        view.offset + sum(start * stride for start, stride in zip(starts, view.strides, strict=True)),
    )


def check_copy(
    x_shape: tuple[int, ...],
    starts: tuple[int, ...],
    shape: tuple[int, ...],
    order: tuple[int, ...],
    pad: tuple[int, ...],
) -> None:
    """Copies a block of x, its dimensions permuted, into the middle of a y that is ``pad`` larger on each side and
    elsewhere -1."""
    x = rng().standard_normal(x_shape, np.float32)
    block = x[tuple(slice(start, start + size) for start, size in zip(starts, shape, strict=True))].transpose(order)
    expected = np.pad(block, [(size, size) for size in pad], constant_values=-1.0)

    def build(b: ProgramBuilder) -> None:
        view = sub_view(b.input("x", x_shape), starts, shape)
        permuted = View(view.buffer, block.shape, tuple(view.strides[dim] for dim in order), view.offset)
        y = b.tensor("y", expected.shape)
        emit_fill(Fill("fill", y, -1.0), b)
        emit_copy(Copy("copy", permuted, sub_view(y, pad, block.shape)), b)
        b.output("y", y)

    check(build, [x], [torch.from_numpy(expected)], rtol=0.0)


@pytest.mark.parametrize("width", [1, 7, 13, 16, 70])
def test_slices_and_padding_of_odd_widths(width: int) -> None:
    check_copy((2, 5, 6, width + 4), (0, 1, 2, 3), (2, 3, 3, width), (0, 1, 2, 3), (0, 0, 1, 2))


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[1::3], ids=str)
def test_permutations(order: tuple[int, ...]) -> None:
    check_copy((3, 17, 5, 13), (0, 0, 0, 0), (3, 17, 5, 13), order, (0, 0, 0, 0))


def test_large_transposition() -> None:
    check_copy((600, 301), (0, 0), (600, 301), (1, 0), (0, 0))


def test_six_dimensions() -> None:
    check_copy((2, 3, 2, 4, 3, 5), (0, 1, 0, 1, 0, 1), (2, 2, 2, 3, 3, 4), (0, 3, 1, 4, 2, 5), (1, 0, 1, 0, 1, 0))


def test_concat_and_channel_slices_are_runs() -> None:
    check_copy((2, 70, 28, 29), (0, 3, 0, 0), (2, 64, 28, 29), (0, 1, 2, 3), (0, 2, 0, 0))


def test_every_second_column_and_broadcast() -> None:
    x = rng().standard_normal((3, 1, 9), np.float32)

    def build(b: ProgramBuilder) -> None:
        view = b.input("x", x.shape)
        spread = View(view.buffer, (3, 4, 5), (9, 0, 2), 0)
        y = b.tensor("y", (3, 4, 5))
        emit_copy(Copy("copy", spread, y), b)
        b.output("y", y)

    check(build, [x], [torch.from_numpy(np.broadcast_to(x[:, :, ::2], (3, 4, 5)).copy())], rtol=0.0)


def test_nothing_to_copy() -> None:
    b = ProgramBuilder("test", isa_named("avx2"))
    emit_copy(Copy("copy", View("x", (2, 0, 3), (3, 3, 1)), View("y", (2, 0, 3), (0, 3, 1))), b)
    assert b.calls == []


def test_dimensions_that_all_tensors_walk_as_one_are_merged() -> None:
    shape = (2, 8, 5, 7)
    whole = contiguous_strides(shape)
    assert nest_of(shape, [whole, whole]).sizes == (1, 560)
    assert nest_of(shape, [whole, (560, 35, 7, 1)]).sizes == (2, 280)
    assert nest_of(shape, [whole, (8, 1, 0, 0)]).sizes == (16, 35)
    assert nest_of((1, 1, 1, 1), [(1, 1, 1, 1)]).sizes == (1, 1)
    assert nest_of((4, 1, 1), [(10, 10, 1)]).strides == ((0,), (10,))


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
def test_code(target: Target) -> None:
    for kernel in (CopyRows(True), CopyRows(False), FillRows(True), FillRows(False)):
        assert external_calls(assembly(kernel, target)) == set()
    vector = {"avx512": "%zmm", "avx2": "%ymm", "neon": "\tq"}[target.isa]
    assert vector in assembly(CopyRows(True), target)
    assert vector in assembly(FillRows(True), target)
