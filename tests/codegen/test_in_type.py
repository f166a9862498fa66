"""Kernels of other types than fp32: their names and parameters, their meaning on numpy, and the instructions they
become."""

import re

import numpy as np
import pytest

from pcc.codegen.in_type import InType, in_type
from pcc.codegen.interpret import interpret
from pcc.codegen.isa import isa_named
from pcc.codegen.kernels.dense_positions import ConvPositions
from pcc.codegen.kernels.elementwise import Map
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.interleaved_tile import InterleavedTile
from pcc.codegen.kernels.linear import LinearTile
from pcc.codegen.layers import Linear
from pcc.codegen.native import run_native
from pcc.codegen.program import ProgramBuilder
from pcc.dtype import FLOAT16, FLOAT32, DType
from pcc.ir.activation import Activation
from pcc.target import target_named
from tests.codegen.kernels.support import X86_TARGETS, assembly, emit_by, external_calls, inner_loop, rng

A76 = target_named("aarch64-linux", "cortex-a76")
RELU = Activation("relu")
PATTERN = ((0, 0), (0, 1), (1, 0), (1, 1))


def of_fp16(kernel, arithmetic: DType, **others: DType):
    """The kernel with fp16 tensors, but for those that are named."""
    held = {
        param.name: others.get(param.name, FLOAT16)
        for param in kernel.params
        if param.is_pointer and param.dtype == FLOAT32
    }
    return in_type(kernel, held, arithmetic)


LINEAR = LinearTile(1, 8, 8, Epilogue())


@pytest.mark.parametrize(
    ("kernel", "name"),
    [
        (of_fp16(LINEAR, FLOAT16), "pcc_linear_1x64_none_f16"),
        (of_fp16(LINEAR, FLOAT16, bias=FLOAT32), "pcc_linear_1x64_none_f16_bias_f32"),
        (of_fp16(LINEAR, FLOAT32), "pcc_linear_1x64_none_f16_in_f32"),
        (of_fp16(LINEAR, FLOAT32, x=FLOAT32, y=FLOAT32, bias=FLOAT32), "pcc_linear_1x64_none_w_f16"),
    ],
)
def test_names_say_what_is_fp16(kernel: InType, name: str) -> None:
    assert kernel.name == name
    assert [param.name for param in kernel.params] == [param.name for param in LINEAR.params]
    assert {param.name for param in kernel.params if param.dtype == FLOAT16} == dict(kernel.tensors).keys()


def test_a_kernel_of_fp32_is_itself() -> None:
    assert of_fp16(LINEAR, FLOAT32, x=FLOAT32, w=FLOAT32, y=FLOAT32, bias=FLOAT32) is LINEAR


@pytest.mark.parametrize(
    ("kernel", "multiplies"),
    [
        (InterleavedTile(3, 8, 1, (PATTERN,), (1, 1), 10, 8, Epilogue(activation=RELU)), 4 * 24),
        (ConvPositions(8, 2, 8, Epilogue(activation=RELU)), 16),
        (LINEAR, 8),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_sums_in_fp16_are_whole_vectors(kernel, multiplies: int) -> None:
    """Eight products an instruction; nothing is converted in the inner loop, and nothing called."""
    text = assembly(of_fp16(kernel, FLOAT16, bias=FLOAT32), A76)
    loop = inner_loop(text)
    assert len(re.findall(r"fmla\s+v\d+\.8h", loop)) == multiplies
    assert not re.search(r"fcvt|\.4s", loop)
    assert external_calls(text) == set()


def test_linear_layers_add_up_blocks_in_fp32() -> None:
    text = assembly(of_fp16(LINEAR, FLOAT16), A76)
    assert len(re.findall(r"fcvtl2?\s+v\d+\.4s", text)) >= 16
    assert re.search(r"fadd\s+v\d+\.4s", text)


@pytest.mark.parametrize("target", [*X86_TARGETS, A76], ids=lambda target: target.cpu)
def test_functions_of_an_element_are_computed_in_fp32_and_rounded_once(target) -> None:
    text = assembly(of_fp16(Map("tanh(x0)", "v"), FLOAT32), target)
    assert re.search(r"vcvtph2ps" if target.arch == "x86_64" else r"fcvtl\s+v\d+\.4s, v\d+\.4h", text)
    assert re.search(r"vcvtps2ph" if target.arch == "x86_64" else r"fcvtn\s+v\d+\.4h, v\d+\.4s", text)
    assert external_calls(text) == set()


@pytest.mark.parametrize("target", X86_TARGETS, ids=lambda target: target.cpu)
@pytest.mark.parametrize("shape", [(1, 700, 130), (5, 33, 41)], ids=str)
def test_weights_in_fp16_are_exact_once_rounded(target, shape: tuple[int, int, int]) -> None:
    rows, depth, outputs = shape
    random = rng()
    x, bias = random.standard_normal((rows, depth), np.float32), random.standard_normal(outputs, np.float32)
    weight = random.standard_normal((outputs, depth)).astype(np.float16)
    b = ProgramBuilder("test", isa_named(target.isa))
    y = b.tensor("y", (rows, outputs))
    emit_by("linear", Linear("fc", b.input("x", x.shape), y, weight, bias), b)
    b.output("y", y)
    program = b.build()
    assert program.constants["fc.weight"].dtype == np.float16
    want = x.astype(np.float64) @ weight.astype(np.float64).T + bias
    for (found,) in (interpret(program, [x]), run_native(program, [x], target)):
        assert np.abs(found - want).max() <= 1e-5 * np.abs(want).max()
    assert "vcvtph2ps" in inner_loop(assembly(program.kernels[0], target))
