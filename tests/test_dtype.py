"""The table of element types: it says what NumPy, PyTorch and C say, it is the only place that does, and a row is all
that a new type needs."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from pcc.codegen.emit_c import emit_model_c
from pcc.codegen.interpret import interpret
from pcc.codegen.isa import ISAS, MultiplyAdd, isa_named
from pcc.codegen.kernels.copy import emit_copy
from pcc.codegen.layers import Copy
from pcc.codegen.native import run_native
from pcc.codegen.plan_memory import PlanMemory
from pcc.codegen.print_program import print_program
from pcc.codegen.program import ProgramBuilder
from pcc.dtype import DTYPES, FLOAT16, FLOAT32, INT8, INT32, DType, dtype_named, dtype_of, full_name, short_name
from pcc.errors import PccError
from pcc.package.toolchain import RUNTIME
from pcc.target import target_named

PCC = Path(__file__).parents[1] / "pcc"


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_a_row_says_what_numpy_and_torch_say(dtype: DType) -> None:
    assert dtype.numpy.itemsize == dtype.bytes == dtype.torch.itemsize
    assert dtype.is_float == dtype.torch.is_floating_point == (dtype.numpy.kind == "f")
    assert dtype_of(dtype.numpy) is dtype_of(dtype.torch) is dtype_named(dtype.name) is dtype


def test_the_c_interface_has_the_same_types() -> None:
    declared = re.search(r"typedef enum pcc_dtype \{(.*?)\}", (RUNTIME / "pcc.h").read_text(), re.DOTALL)
    assert declared
    assert dict(re.findall(r"(PCC_\w+) = (\d+)", declared[1])) == {
        dtype.c_name: str(dtype.code) for dtype in DTYPES.values()
    }


def test_what_is_no_element_type() -> None:
    with pytest.raises(PccError, match=r"unknown element type 'complex64': pcc has float32, .*int64"):
        dtype_of(torch.complex64)
    with pytest.raises(PccError, match="unknown element type 'float64'"):
        ProgramBuilder("constants", isa_named("neon")).constant("c", np.zeros(3))
    assert (short_name(torch.float32), short_name(torch.bool)) == ("f32", "bool")
    assert (full_name(torch.float32), full_name(np.dtype("complex64"))) == ("float32", "complex64")


def test_a_tensor_of_another_type_than_the_kernel_takes() -> None:
    b = ProgramBuilder("mixed", isa_named("avx2"))
    b.layer = "copied"
    x, y = b.input("x", (2, 3), INT8), b.tensor("y", (2, 3))
    with pytest.raises(PccError, match="layer 'copied': pcc_copy_i8 takes int8 as y, y is float32"):
        emit_copy(Copy("copy", x, y), b)


def test_tables_hold_what_fits() -> None:
    b = ProgramBuilder("tables", isa_named("avx2"))
    assert b.table("places", np.array([0, 2**31 - 1])).dtype is INT32
    with pytest.raises(PccError, match="places holds 2147483648, which does not fit int32; the tensors are too large"):
        b.table("places", np.array([0, 2**31]))


def test_what_instruction_sets_multiply() -> None:
    for isa in ISAS.values():
        assert isa.lanes(INT8) == 4 * isa.lanes(FLOAT32) == isa.vector_bytes
        assert isa.multiply_add(FLOAT32).by_lane == isa.name.startswith("neon")
        assert isa.computes_in(FLOAT16) == (isa.name == "neon-fp16")
    with pytest.raises(PccError, match="avx2 does not multiply int8, only float32"):
        isa_named("avx2").multiply_add(INT8)
    assert MultiplyAdd(INT8, INT32, products=4).factors == INT8


def test_a_row_is_all_that_a_new_type_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the builder to machine code and ``model.c``; only the enum of pcc.h, which applications include, has it by
    hand."""
    monkeypatch.setitem(DTYPES, "int16", DType("int16", "i16", "int16_t", 2, code=7))
    dtype, shape = dtype_named("int16"), (3, 37)
    x = np.arange(-50, 61, dtype=np.int16).reshape(shape)
    b = ProgramBuilder("words", isa_named("avx2"))
    y = b.tensor("y", shape, dtype)
    emit_copy(Copy("copy", b.input("x", shape, dtype), y), b)
    both = b.tensor("both", (2, *shape), dtype)
    emit_copy(Copy("first", y, _half(both, 0)), b)
    emit_copy(Copy("second", b.constant("half", x // 2), _half(both, 1)), b)
    b.output("both", both)
    program = PlanMemory()(b.build())
    for found in (*interpret(program, [x]), *run_native(program, [x], target_named("x86_64-linux"))):
        assert found.dtype == np.int16
        np.testing.assert_array_equal(found, np.stack([x, x // 2]))
    assert "input x: i16[3,37] in %x" in print_program(program)
    text = emit_model_c([(target_named("x86_64-linux"), program)])
    assert "PCC_ELEMENT(int16, int16_t, PCC_INT16)" in text
    assert '{"x", &pcc_int16, inputs_avx2_0_dims, 2, 222, ' in text


def _half(view, index: int):
    from pcc.codegen.lower import slice_view

    part = slice_view(view, 0, index, index + 1)
    return type(view)(part.buffer, part.shape[1:], part.strides[1:], part.offset, part.dtype)


TYPE_NAMES = re.compile(r"\b(float|u?int)(8|16|32|64)(x\d+)?\b|^[<>=|]?[fiu][1248]$")


def _literals(path: Path) -> list[str]:
    """Where a file names an element type in a string, or multiplies or divides by a literal 4."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    found = []
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node not in texts
            and TYPE_NAMES.search(node.value)
        ):
            found.append(f"{path.name}:{node.lineno}: {node.value!r}")
        if (
            isinstance(node, ast.BinOp)
            and isinstance(node.op, ast.Mult | ast.Div | ast.FloorDiv | ast.Mod)
            and any(isinstance(side, ast.Constant) and side.value == 4 for side in (node.left, node.right))
        ):
            found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    return found


WIDER = ("power.py", "trigonometry.py", "text.py", "select_kernels.py")
"""Functions of an element that compute, inside, in types that no element has; OpenCL C, whose vectors are called
so; and an option of a pass."""


def test_no_other_place_names_types_or_has_their_sizes() -> None:
    files = [
        path
        for folder in ("codegen", "package", "runtime", "deploy")
        for path in (PCC / folder).rglob("*.py")
        if path.name not in WIDER
    ]
    assert len(files) > 50
    assert [line for path in files for line in _literals(path)] == []
    for path in RUNTIME.glob("*.c"):
        numbers = path.read_text().replace("(float)", "")  # what any element is set to
        assert not re.search(r"\b(float|fp32)\b", numbers), f"{path.name} knows an element type"
