"""Runs a program's real machine code on this computer, one kernel at a time, from Python: for tests and for tuning, not
for shipping."""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from pcc.codegen.interpret import execute
from pcc.codegen.kernel import Argument, Kernel, symbol
from pcc.codegen.objects import compile_kernels
from pcc.codegen.program import Program
from pcc.scratch import temporary_folder
from pcc.target import Target
from pcc.zig import run_tool, zig


class NativeKernels:
    """Kernels linked into one shared library and loaded. Needs a target this computer can execute."""

    def __init__(self, kernels: Sequence[Kernel], target: Target, workers: int = 1) -> None:
        self._isa = target.isa
        objects = [str(compiled.object) for compiled in compile_kernels(kernels, target, workers)]
        with temporary_folder() as folder:
            library = folder / "kernels.so"
            emulation = {"x86_64": "elf_x86_64", "aarch64": "aarch64linux"}[target.arch]
            run_tool([*zig(), "ld.lld", "-m", emulation, "-shared", "-o", str(library), *objects])
            self._library = ctypes.CDLL(str(library))

    def call(self, kernel: Kernel, arguments: Mapping[str, Argument], begin: int, end: int) -> None:
        """Calls the kernel on ``[begin, end)``; arrays are passed by address, starting at their first element."""
        self.bound(kernel, arguments, begin, end)()

    def bound(self, kernel: Kernel, arguments: Mapping[str, Argument], begin: int, end: int) -> Callable[[], object]:
        """A function that makes this call and takes next to no time besides. The arrays must live as long as it is
        used."""
        values = []
        for param in kernel.params:
            value = arguments[param.name]
            if isinstance(value, np.ndarray):
                values.append(ctypes.c_void_p(value.ctypes.data))
            else:
                values.append(np.ctypeslib.as_ctypes_type(param.dtype.numpy)(value))
        return partial(
            getattr(self._library, symbol(kernel, self._isa)), *values, ctypes.c_int32(begin), ctypes.c_int32(end)
        )


def run_native(program: Program, inputs: Sequence[np.ndarray], target: Target, parts: int = 1) -> list[np.ndarray]:
    """Runs the program's machine code here. ``parts`` splits every call's work, as threads would."""
    return execute(program, inputs, NativeKernels(program.kernels, target).call, parts)
