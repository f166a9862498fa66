"""Runs single layers' machine code in this process, again and again: for those who time it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pcc.codegen.interpret import Memory
from pcc.codegen.isa import isa_named
from pcc.codegen.layers import Conv2d
from pcc.codegen.native import NativeKernels
from pcc.codegen.program import Program, ProgramBuilder
from pcc.target import Target


@dataclass(frozen=True)
class LayerRunner:
    """A layer's calls on one thread; each is ready but for the jump."""

    calls: Sequence[Callable[[], object]]
    memory: Memory
    """Where they read and write: it has to stay."""

    def __call__(self) -> None:
        for call in self.calls:
            call()


def layer_runners(emits: Sequence[Callable[[ProgramBuilder], Conv2d]], target: Target, workers: int = 1) -> list[LayerRunner]:
    """The layers that each of ``emits`` records, ready to run on random inputs; ``workers`` processes compile what the cache does not have."""
    layers, programs = [], []
    for emit in emits:
        b = ProgramBuilder("layer", isa_named(target.isa))
        layers.append(emit(b))
        programs.append(b.build())
    kernels = {kernel.name: kernel for program in programs for kernel in program.kernels}
    native = NativeKernels(list(kernels.values()), target, workers)
    return [_runner(layer, program, native) for layer, program in zip(layers, programs, strict=True)]


def _runner(layer: Conv2d, program: Program, native: NativeKernels) -> LayerRunner:
    memory = Memory(program)
    x = memory.arrays[layer.x.buffer]
    x[:] = np.random.default_rng(1).standard_normal(x.size, np.float32)
    return LayerRunner([native.bound(call.kernel, memory.arguments(call), 0, call.work) for call in program.calls], memory)
