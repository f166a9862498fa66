"""Runs one layer's machine code in this process, again and again: for those who time it."""

from collections.abc import Callable
from math import prod

import numpy as np

from pcc.codegen.interpret import Memory
from pcc.codegen.layers import Conv2d
from pcc.codegen.machine import machine_of
from pcc.codegen.native import NativeKernels
from pcc.codegen.program import ProgramBuilder
from pcc.target import Target


def layer_runner(emit: Callable[[ProgramBuilder], Conv2d], target: Target) -> Callable[[], None]:
    """A function that runs once, on one thread and on a random input, the layer that ``emit`` records."""
    b = ProgramBuilder("layer", machine_of(target).isa)
    layer = emit(b)
    program = b.build()
    native, memory = NativeKernels(program.kernels, target), Memory(program)
    size = prod(layer.x.shape)
    memory.arrays[layer.x.buffer][:size] = np.random.default_rng(1).standard_normal(size, np.float32)
    calls = [(call.kernel, memory.arguments(call), call.work) for call in program.calls]

    def run() -> None:
        for kernel, arguments, work in calls:
            native.call(kernel, arguments, 0, work)

    return run
