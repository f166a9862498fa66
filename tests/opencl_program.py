"""Runs a device program on an OpenCL driver, its buffers parts of one arena as a host has them."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from pcc.codegen.opencl.kernel import DeviceKernel
from pcc.codegen.opencl.lower import lower_device
from pcc.codegen.program import Program, View
from pcc.codegen.select_kernels import SelectKernels
from pcc.frontend.torch_module import import_module
from pcc.passes.manager import PassManager
from pcc.passes.pipeline import parse_pipeline
from tests.opencl import POCL, _compiled, _queue

GRAPH_PASSES = "decompose,canonicalize,fold-constants,fold-batchnorm,fuse-epilogues,reorder-kernels"


def device_program(
    module: torch.nn.Module,
    examples: Sequence[torch.Tensor],
    profile: str = "generic",
    passes: str = GRAPH_PASSES,
) -> Program[DeviceKernel]:
    """The program of a module for a GPU."""
    return lower_device(device_graph(module, examples, profile, passes), "net")


def device_graph(
    module: torch.nn.Module,
    examples: Sequence[torch.Tensor],
    profile: str = "generic",
    passes: str = GRAPH_PASSES,
    sums: Literal["float32", "float16"] = "float32",
) -> torch.fx.GraphModule:
    """The graph of a module whose kernels are chosen for a GPU."""
    steps = [*parse_pipeline(passes), SelectKernels(profile, sums=sums)]
    return PassManager(steps)(import_module(module.eval(), tuple(examples))).graph_module


def run_program(program: Program[DeviceKernel], inputs: Sequence[np.ndarray], platform: str = POCL) -> list[np.ndarray]:
    """The outputs. The arena is junk at first."""
    import pyopencl as cl

    queue, flags = _queue(platform), cl.mem_flags
    junk = np.full(program.arena_bytes + 512, 0xFF, np.uint8)
    arena = cl.Buffer(queue.context, flags.READ_WRITE | flags.COPY_HOST_PTR, hostbuf=junk)
    buffers = {}
    for name, buffer in program.buffers.items():
        if buffer.role == "constant":
            values = np.ascontiguousarray(program.constants[name])
            buffers[name] = cl.Buffer(queue.context, flags.READ_ONLY | flags.COPY_HOST_PTR, hostbuf=values)
        elif buffer.role == "prepared":
            zeros = np.zeros(buffer.nbytes, np.uint8)
            buffers[name] = cl.Buffer(queue.context, flags.READ_WRITE | flags.COPY_HOST_PTR, hostbuf=zeros)
        elif buffer.offset is not None:
            assert buffer.offset % 512 == 0
            buffers[name] = arena.get_sub_region(buffer.offset, buffer.nbytes)
    for port, value in zip(program.inputs, inputs, strict=True):
        if port.buffer in buffers:
            cl.enqueue_copy(queue, buffers[port.buffer], np.ascontiguousarray(value, port.dtype.numpy))
    for call in (*program.preparation, *program.calls):
        assert call.range is not None
        bound = [buffers[v.buffer] if isinstance(v, View) else np.int32(v) for v in call.args.values()]
        _compiled(call.kernel, platform)(queue, call.range.global_size, call.range.local_size, *bound)
    outputs = [np.empty(port.shape, port.dtype.numpy) for port in program.outputs]
    for port, result in zip(program.outputs, outputs, strict=True):
        cl.enqueue_copy(queue, result, buffers[port.buffer])
    queue.finish()
    return outputs


def interpret_device(program: Program[DeviceKernel], inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs by the kernels' references, in one arena."""
    arena = np.full(program.arena_bytes + 512, 0xFF, np.uint8)
    arrays = {}
    for name, buffer in program.buffers.items():
        if buffer.role == "constant":
            arrays[name] = program.constants[name].ravel()
        elif buffer.role == "prepared":
            arrays[name] = np.zeros(buffer.elements, buffer.dtype.numpy)
        elif buffer.offset is not None:
            arrays[name] = arena[buffer.offset : buffer.offset + buffer.nbytes].view(buffer.dtype.numpy)
    for port, value in zip(program.inputs, inputs, strict=True):
        if port.buffer in arrays:
            arrays[port.buffer][:] = value.ravel()
    for call in (*program.preparation, *program.calls):
        args = {name: arrays[v.buffer] if isinstance(v, View) else v for name, v in call.args.items()}
        assert call.range is not None
        call.kernel.reference(args, call.range)
    return [arrays[port.buffer].reshape(port.shape).copy() for port in program.outputs]
