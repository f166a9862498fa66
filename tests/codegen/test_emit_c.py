"""model.c: its text, its weights, and the numbers it cannot take."""

import hashlib
import re
from dataclasses import replace

import numpy as np
import pytest

from pcc.codegen.emit_c import emit_model_c, float_text, lay_out_weights, weight_chunks
from pcc.codegen.kernel import READ_SLACK
from pcc.codegen.program import Call, Program, View
from pcc.errors import PccError
from pcc.target import target_named
from tests.toy import toy_program

TARGET = target_named("aarch64-linux", "cortex-a76")


def test_golden(golden) -> None:
    golden(emit_model_c([(TARGET, toy_program(depth=2))]), "model_c")


def test_weights_are_laid_out_as_they_are_written() -> None:
    program = toy_program()
    weights = lay_out_weights(program)
    block = b"".join(bytes(chunk) for chunk in weight_chunks(weights))
    assert len(block) == weights.nbytes
    assert hashlib.sha256(block).digest() == weights.digest
    for name, values in program.constants.items():
        start = weights.offsets[0][name]
        assert start % 64 == 0
        assert block[start : start + values.nbytes] == values.tobytes()
    assert block[-READ_SLACK:] == bytes(READ_SLACK)


def test_program_without_constants() -> None:
    program = replace(toy_program(), constants={})
    assert lay_out_weights(program).nbytes == READ_SLACK


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, 0.1, 1 / 3, -1e-38, 1.4e-45, 3.4028234e38, 6.0, 123456789.0, 1e-5])
def test_floats_keep_every_bit(value: float) -> None:
    text = float_text(value)
    assert re.fullmatch(r"-?\d+\.\d+(e[+-]\d+)?f", text)
    assert np.float32(text[:-1]).tobytes() == np.float32(value).tobytes()


def test_floats_that_are_no_numbers() -> None:
    assert [float_text(float(value)) for value in ("inf", "-inf", "nan")] == [
        "__builtin_inff()",
        "-__builtin_inff()",
        '__builtin_nanf("")',
    ]


def _with_call(program: Program, **changes) -> Program:
    first: Call = program.calls[0]
    return replace(program, calls=(replace(first, **changes), *program.calls[1:]))


def test_numbers_that_do_not_fit() -> None:
    program = toy_program()
    with pytest.raises(PccError, match=r"layer 'scale.0': width=4294967296 of pcc_toy_scale_rows does not fit 32 bits"):
        emit_model_c([(TARGET, _with_call(program, args={**program.calls[0].args, "width": 1 << 32}))])
    call = program.calls[0]
    view = next(value for value in call.args.values() if isinstance(value, View))
    large = replace(view, shape=(1 << 20, 1 << 12), strides=(1 << 12, 1))
    args = {name: large if value is view else value for name, value in call.args.items()}
    with pytest.raises(PccError, match="has elements that 32 bits do not count; the tensors are too large"):
        emit_model_c([(TARGET, _with_call(program, args=args))])
    for work in (0, 1 << 31):
        with pytest.raises(PccError, match=rf"layer 'scale.0': {work} work items"):
            emit_model_c([(TARGET, _with_call(program, work=work))])


def test_memory_must_be_planned() -> None:
    program = toy_program()
    unplanned = {name: replace(buffer, offset=None) for name, buffer in program.buffers.items()}
    with pytest.raises(ValueError, match="plan-memory"):
        emit_model_c([(TARGET, replace(program, buffers=unplanned))])


def test_different_kernels_of_one_name_are_not_merged() -> None:
    program = toy_program()
    kernel = replace(program.calls[0].kernel, params=())  # type: ignore[type-var]
    with pytest.raises(ValueError, match="two different kernels are named pcc_toy_scale_rows"):
        _ = _with_call(program, kernel=kernel).kernels
    assert [kernel.name for kernel in program.kernels] == ["pcc_toy_gather", "pcc_toy_scale_rows"]
