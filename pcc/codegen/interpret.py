"""The program's reference interpreter: every call's numpy meaning, on one arena."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np

from pcc.codegen.kernel import READ_LEAD, READ_SLACK, Argument, Kernel
from pcc.codegen.program import ALIGNMENT, Call, Program, View

_POISON = 0xFF
"""The bytes of what was never written: a NaN of every floating-point type, -1 of integers."""


class Memory:
    """A program's buffers on numpy: one array each before memory is planned, slices of one arena after."""

    def __init__(self, program: Program) -> None:
        self.buffers = program.buffers
        arena = _aligned(program.arena_bytes, _POISON)
        self.arrays: dict[str, np.ndarray] = {}
        for buffer in program.buffers.values():
            if buffer.role == "constant":
                values = program.constants[buffer.name].ravel()
                self.arrays[buffer.name] = _aligned(buffer.nbytes, 0).view(values.dtype)
                self.arrays[buffer.name][: values.size] = values
            else:
                apart = buffer.role in ("thread", "prepared") or buffer.offset is None
                memory = _aligned(buffer.all_bytes, _POISON) if apart else arena[buffer.offset :]
                self.arrays[buffer.name] = memory.view(buffer.dtype.numpy)

    def resolve(self, value: View | int | float, image: int = 0) -> Argument:
        """An argument as a kernel gets it: a flat array from the view's first element on, or the number."""
        return self.of_image(value.buffer, image)[value.offset :] if isinstance(value, View) else value

    def arguments(self, call: Call, image: int = 0) -> Mapping[str, Argument]:
        return {name: self.resolve(value, image) for name, value in call.args.items()}

    def of_image(self, name: str, image: int) -> np.ndarray:
        """What a buffer has for an image of a batch, and what lies behind."""
        buffer = self.buffers[name]
        return self.arrays[name][image * buffer.image_bytes // buffer.dtype.bytes :]


def _aligned(nbytes: int, fill: int) -> np.ndarray:
    """Bytes that start where buffers do, with what may be read before and behind them."""
    memory = np.full(READ_LEAD + ALIGNMENT + nbytes + READ_SLACK, fill, np.uint8)
    start = READ_LEAD + -(memory.ctypes.data + READ_LEAD) % ALIGNMENT
    return memory[start : start + nbytes + READ_SLACK]


def interpret(program: Program, inputs: Sequence[np.ndarray], parts: int = 1) -> list[np.ndarray]:
    """Runs the program on numpy. ``parts`` splits every call's work, as threads would."""
    with np.errstate(all="ignore"):  # infinities and NaN are results like others, here as in machine code
        return execute(
            program, inputs, lambda kernel, arguments, begin, end: kernel.reference(arguments, begin, end), parts
        )


RunKernel = Callable[[Kernel, Mapping[str, Argument], int, int], None]
"""Runs a kernel on its arguments for the work items ``[begin, end)``."""


def execute(program: Program, inputs: Sequence[np.ndarray], run_kernel: RunKernel, parts: int) -> list[np.ndarray]:
    """Prepares, copies inputs in, runs each call in up to ``parts`` ranges of its work items, copies outputs out; stage
    by stage, as the runtime does."""
    memory, touched = Memory(program), program.touched_stages()
    for call, part in product(program.preparation, range(parts)):
        _run(call, memory, run_kernel, range(1), part, parts)
    count = len(inputs[0]) if program.max_batch else 1
    entered = [
        (port, np.asarray(value, port.dtype.numpy).reshape(count, -1))
        for port, value in zip(program.inputs, inputs, strict=True)
    ]
    outputs = [np.empty((count, int(np.prod(port.shape))), port.dtype.numpy) for port in program.outputs]
    for place, stage in enumerate(program.stages):
        entering = [(port, value) for port, value in entered if touched[port.buffer][0] == place]
        leaving = [
            (port, result)
            for port, result in zip(program.outputs, outputs, strict=True)
            if touched[port.buffer][-1] == place
        ]
        for images in [range(count)] if stage.at_once else [range(image, image + 1) for image in range(count)]:
            for (port, value), image in product(entering, images):
                memory.of_image(port.buffer, image)[: value.shape[1]] = value[image]
            for call, part in product(program.calls[stage.begin : stage.end], range(parts)):
                _run(call, memory, run_kernel, images, part, parts)
            for (port, result), image in product(leaving, images):
                result[image] = memory.of_image(port.buffer, image)[: result.shape[1]]
    shapes = [(port.shape[0] * count, *port.shape[1:]) if program.max_batch else port.shape for port in program.outputs]
    return [result.reshape(shape) for result, shape in zip(outputs, shapes, strict=True)]


def _run(call: Call, memory: Memory, run_kernel: RunKernel, images: range, part: int, parts: int) -> None:
    """One of ``parts`` ranges of a call's items for some images."""
    items = call.items(len(images))
    begin, end = items * part // parts, items * (part + 1) // parts
    if call.together and begin < end:
        numbers = call.together.numbers(call, memory.buffers, len(images))
        run_kernel(call.kernel, {**memory.arguments(call, images.start), **numbers}, begin, end)
    while begin < end and not call.together:
        image = begin // call.work
        stop = min(end, (image + 1) * call.work)
        run_kernel(
            call.kernel, memory.arguments(call, images[image]), begin - image * call.work, stop - image * call.work
        )
        begin = stop
