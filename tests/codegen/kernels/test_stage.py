"""Staged inputs: every tap of every output position reads the right element, from as few elements as the layout
allows."""

import itertools

import numpy as np
import pytest

from pcc.codegen.interpret import Memory, interpret
from pcc.codegen.isa import isa_named
from pcc.codegen.kernels.stage import Layout, Stage, Staged, stage
from pcc.codegen.layers import ConvGeometry
from pcc.codegen.native import NativeKernels
from pcc.codegen.program import Program, ProgramBuilder
from pcc.errors import PccError
from pcc.target import Target

from .support import ALL_TARGETS, X86_TARGETS, assembly, external_calls, rng

GEOMETRIES = [
    ConvGeometry(kernel, stride, padding, dilation)
    for kernel, stride, padding, dilation in [
        ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
        ((3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
        ((3, 3), (2, 2), (0, 0, 1, 1), (1, 1)),
        ((7, 7), (2, 2), (3, 3, 3, 3), (1, 1)),
        ((1, 1), (2, 2), (0, 0, 0, 0), (1, 1)),
        ((1, 1), (1, 1), (1, 2, 0, 1), (1, 1)),
        ((3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
        ((3, 3), (2, 2), (2, 2, 2, 2), (2, 2)),
        ((3, 2), (3, 3), (0, 3, 2, 1), (1, 1)),
        ((5, 3), (1, 2), (2, 0, 1, 3), (1, 1)),
        ((3, 5), (2, 1), (3, 1, 0, 0), (2, 1)),
        ((2, 2), (3, 1), (1, 0, 1, 0), (1, 3)),
        ((11, 11), (4, 4), (2, 2, 2, 2), (1, 1)),
    ]
]
SIZES = [(7, 1), (1, 7), (7, 7), (13, 13), (33, 40), (9, 70)]


def valid(geometry: ConvGeometry, height: int, width: int) -> bool:
    try:
        geometry.output_size(height, width)
    except PccError:
        return False
    return True


def windows(x: np.ndarray, geometry: ConvGeometry, fill: float) -> np.ndarray:
    """(N, C, kh*kw, OH, OW): what each tap of each output reads."""
    (top, left, bottom, right), (dh, dw), (sh, sw) = geometry.padding, geometry.dilation, geometry.stride
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    oh, ow = geometry.output_size(*x.shape[2:])
    taps = itertools.product(range(geometry.window[0]), range(geometry.window[1]))
    return np.stack([padded[:, :, u * dh :, v * dw :][:, :, ::sh, ::sw][:, :, :oh, :ow] for u, v in taps], axis=2)


def read(staged: Staged, memory: np.ndarray, batch: int, channels: int) -> np.ndarray:
    """The same, through the staged layout."""
    n, c, t, y, x = np.ogrid[:batch, :channels, : len(staged.taps), : staged.height, : staged.width]
    return memory[staged.view.offset + n * staged.image + c * staged.plane + staged.taps[t] + y * staged.pitch + x]


def build(shape: tuple[int, ...], geometry: ConvGeometry, fill: float) -> tuple[Program, Staged]:
    b = ProgramBuilder("test", isa_named("avx2"))
    staged = stage(b, b.input("x", shape), geometry, fill)
    return b.build(), staged


@pytest.mark.parametrize("fill", [0.0, -np.inf])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_every_tap_reads_its_element(geometry: ConvGeometry, fill: float) -> None:
    for height, width in SIZES:
        if not valid(geometry, height, width):
            continue
        x = rng().standard_normal((2, 3, height, width), np.float32)
        program, staged = build(x.shape, geometry, fill)
        memory = Memory(program)
        memory.arrays["x"][: x.size] = x.ravel()
        for call in program.calls:
            call.kernel.reference(memory.arguments(call), 0, call.work)
        np.testing.assert_array_equal(read(staged, memory.arrays[staged.view.buffer], 2, 3), windows(x, geometry, fill))


@pytest.mark.parametrize("target", X86_TARGETS, ids=lambda target: target.cpu)
def test_machine_code_writes_what_the_reference_writes(target: Target) -> None:
    kernels = NativeKernels([Stage(stride) for stride in (1, 2, 3, 4)], target)
    for geometry, (height, width) in itertools.product(GEOMETRIES, SIZES):
        if not valid(geometry, height, width):
            continue
        x = rng().standard_normal((2, 3, height, width), np.float32)
        program, staged = build(x.shape, geometry, 0.5)
        results = []
        for native in (False, True):
            memory = Memory(program)
            memory.arrays["x"][: x.size] = x.ravel()
            (call,) = program.calls
            arguments = memory.arguments(call)
            for begin, end in ((4, 6), (0, 1), (1, 4)):
                if native:
                    kernels.call(call.kernel, arguments, begin, end)
                else:
                    call.kernel.reference(arguments, begin, end)
            results.append(memory.arrays[staged.view.buffer])
        np.testing.assert_array_equal(*results)
        assert np.isfinite(results[0][: 6 * staged.plane]).all()
        assert np.isnan(results[1][6 * staged.plane :]).all()


def test_rows_share_their_padding() -> None:
    assert Layout(ConvGeometry((3, 3), padding=(1, 1, 1, 1)), 7, 7).pitch == 8
    assert Layout(ConvGeometry((5, 5), padding=(2, 2, 2, 2)), 14, 14).pitch == 16
    assert Layout(ConvGeometry((3, 3), (2, 2), padding=(1, 1, 1, 1)), 56, 56).pitch == 29


def test_only_phases_that_taps_use_are_stored() -> None:
    layout = Layout(ConvGeometry((1, 1), stride=(2, 2)), 14, 14)
    assert (len(layout.phases), layout.plane) == (1, 64)
    assert len(Layout(ConvGeometry((3, 3), stride=(2, 2), dilation=(2, 2)), 14, 14).phases) == 1


def test_unpadded_input_is_read_in_place() -> None:
    program, staged = build((2, 3, 9, 11), ConvGeometry((3, 3)), 0.0)
    assert program.calls == ()
    assert (staged.view.buffer, staged.pitch, staged.plane, staged.image) == ("x", 11, 99, 297)


def test_equal_requests_share_one_copy() -> None:
    b = ProgramBuilder("test", isa_named("avx2"))
    x = b.input("x", (1, 3, 9, 9))
    geometry = ConvGeometry((3, 3), padding=(1, 1, 1, 1))
    assert stage(b, x, geometry).view == stage(b, x, geometry).view
    assert len(b.calls) == 1
    stage(b, x, geometry, fill=-np.inf)
    assert len(b.calls) == 2


def test_strided_input() -> None:
    """A slice of channels of a larger tensor with longer rows."""
    geometry = ConvGeometry((3, 3), (2, 2), (1, 1, 1, 1))
    x = rng().standard_normal((2, 5, 9, 12), np.float32)
    b = ProgramBuilder("test", isa_named("avx2"))
    whole = b.input("x", x.shape)
    view = type(whole)(whole.buffer, (2, 3, 9, 10), whole.strides, 108 + 1)
    staged = stage(b, view, geometry)
    b.output("y", b.tensor("unused", (1,)))
    program = b.build()
    memory = Memory(program)
    memory.arrays["x"][: x.size] = x.ravel()
    (call,) = program.calls
    call.kernel.reference(memory.arguments(call), 0, call.work)
    np.testing.assert_array_equal(
        read(staged, memory.arrays[staged.view.buffer], 2, 3), windows(x[:, 1:4, :, 1:11], geometry, 0.0)
    )
    assert interpret(program, [x])[0].shape == (1,)


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
def test_objects_need_nothing(target: Target) -> None:
    for column_stride in (1, 2, 3, 4):
        assert external_calls(assembly(Stage(column_stride), target)) == set()


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
def test_second_columns_are_picked_by_shuffles(target: Target) -> None:
    """Rows of stride 2 are read as whole vectors."""
    text = assembly(Stage(2), target)
    assert any(shuffle in text for shuffle in ("uzp1", "vpermt2ps", "vpermi2ps", "vshufps", "vpermps"))
