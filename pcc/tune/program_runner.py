"""Runs a program's machine code in this process, again and again: for those who time it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pcc.codegen.interpret import Memory
from pcc.codegen.native import NativeKernels
from pcc.codegen.program import Program


@dataclass(frozen=True)
class ProgramRunner:
    """A program's calls on one thread; each is ready but for the jump."""

    calls: Sequence[Callable[[], object]]
    memory: Memory
    """Where they read and write: it has to stay."""

    def __call__(self) -> None:
        for call in self.calls:
            call()


def program_runner(program: Program, native: NativeKernels) -> ProgramRunner:
    """A program whose kernels are among those that are loaded, ready to run on random inputs."""
    memory = Memory(program)
    for buffer in program.buffers.values():
        if not buffer.is_weight:
            values = memory.arrays[buffer.name]
            values[:] = np.random.default_rng(1).standard_normal(values.size, np.float32)
    for call in program.preparation:
        native.call(call.kernel, memory.arguments(call), 0, call.work)
    return ProgramRunner(
        [native.bound(call.kernel, memory.arguments(call), 0, call.work) for call in program.calls], memory
    )
