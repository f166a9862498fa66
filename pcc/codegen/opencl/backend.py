"""OpenCL as a backend: kernels travel as text, which the device's own compiler builds."""

from typing import Any

from torch.fx import GraphModule

from pcc.codegen.gpu_backend import GpuArtefact, GpuKernel
from pcc.codegen.opencl.profiles import PROFILES
from pcc.codegen.program import Program


class OpenCL:
    """A `pcc.codegen.gpu_backend.GpuBackend`."""

    name = "opencl"
    suffix = "cl"
    runtime = "pcc_opencl_backend"

    @property
    def profiles(self) -> tuple[str, ...]:
        return tuple(PROFILES)

    def lower(self, graph_module: GraphModule, name: str, profile: str) -> Program:
        from pcc.codegen.opencl.lower import lower_device

        return lower_device(graph_module, name, profile)

    def compile(self, program: Program, profile: str) -> GpuArtefact:
        from pcc.codegen.opencl.text import opencl_text

        kernels: tuple[Any, ...] = program.kernels
        texts = [GpuKernel(kernel.name, opencl_text(kernel)) for kernel in kernels]
        return GpuArtefact(profile, PROFILES[profile].devices, program, texts)
