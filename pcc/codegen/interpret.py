"""The program's reference interpreter: every call's numpy meaning, on one arena."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pcc.codegen.kernel import READ_LEAD, READ_SLACK, Argument, Kernel
from pcc.codegen.program import ALIGNMENT, Call, Program, View

_POISON = 0xFF
"""The bytes of what was never written: a NaN of every floating-point type, -1 of integers."""


class Memory:
    """A program's buffers on numpy: one array each before memory is planned, slices of one arena after."""

    def __init__(self, program: Program) -> None:
        arena = _aligned(program.arena_bytes, _POISON)
        self.arrays: dict[str, np.ndarray] = {}
        for buffer in program.buffers.values():
            if buffer.role == "constant":
                values = program.constants[buffer.name].ravel()
                self.arrays[buffer.name] = _aligned(buffer.nbytes, 0).view(values.dtype)
                self.arrays[buffer.name][: values.size] = values
            else:
                memory = _aligned(buffer.nbytes, _POISON) if buffer.role == "thread" or buffer.offset is None else arena[buffer.offset :]
                self.arrays[buffer.name] = memory.view(buffer.dtype.numpy)

    def resolve(self, value: View | int | float) -> Argument:
        """An argument as a kernel gets it: a flat array from the view's first element on, or the number."""
        return self.arrays[value.buffer][value.offset :] if isinstance(value, View) else value

    def arguments(self, call: Call) -> Mapping[str, Argument]:
        return {name: self.resolve(value) for name, value in call.args.items()}


def _aligned(nbytes: int, fill: int) -> np.ndarray:
    """Bytes that start where buffers do, with what may be read before and behind them."""
    memory = np.full(READ_LEAD + ALIGNMENT + nbytes + READ_SLACK, fill, np.uint8)
    start = READ_LEAD + -(memory.ctypes.data + READ_LEAD) % ALIGNMENT
    return memory[start : start + nbytes + READ_SLACK]


def interpret(program: Program, inputs: Sequence[np.ndarray], parts: int = 1) -> list[np.ndarray]:
    """Runs the program on numpy. ``parts`` splits every call's work, as threads would."""
    with np.errstate(all="ignore"):  # infinities and NaN are results like others, here as in machine code
        return execute(program, inputs, lambda kernel, arguments, begin, end: kernel.reference(arguments, begin, end), parts)


RunKernel = Callable[[Kernel, Mapping[str, Argument], int, int], None]
"""Runs a kernel on its arguments for the work items ``[begin, end)``."""


def execute(program: Program, inputs: Sequence[np.ndarray], run_kernel: RunKernel, parts: int) -> list[np.ndarray]:
    """Copies inputs in, runs each call in up to ``parts`` ranges of its work items, copies outputs out."""
    memory = Memory(program)
    for port, value in zip(program.inputs, inputs, strict=True):
        memory.arrays[port.buffer][: value.size] = np.asarray(value, port.dtype.numpy).ravel()
    for call in program.calls:
        arguments = memory.arguments(call)
        for part in range(parts):
            begin, end = call.work * part // parts, call.work * (part + 1) // parts
            if begin < end:
                run_kernel(call.kernel, arguments, begin, end)
    return [memory.arrays[port.buffer][: int(np.prod(port.shape))].reshape(port.shape).copy() for port in program.outputs]
