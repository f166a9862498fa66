"""OpenCL as a backend: kernels travel as text, which the device's own compiler builds."""

from collections.abc import Mapping
from typing import Any

from torch.fx import GraphModule

from pcc.codegen.gpu_backend import Crossing, GpuArtefact, GpuKernel
from pcc.codegen.host_program import HostCalls
from pcc.codegen.opencl.kernel import DeviceKernel
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

    def lower(self, graph_module: GraphModule, name: str, host: HostCalls | None = None) -> Program[DeviceKernel]:
        from pcc.codegen.opencl.lower import lower_device

        return lower_device(graph_module, name, host)

    def seconds(self, graph_module: GraphModule, program: Program[Any], profile: str) -> Mapping[str, float]:
        from pcc.codegen.opencl.times import node_seconds

        return node_seconds(graph_module, program, PROFILES[profile])

    def crossing(self, profile: str) -> Crossing:
        from pcc.codegen.opencl.times import CROSSING

        return CROSSING

    def compile(self, program: Program[DeviceKernel], profile: str) -> GpuArtefact:
        from pcc.codegen.opencl.text import opencl_text

        texts = [GpuKernel(kernel.name, opencl_text(kernel)) for kernel in program.kernels]
        return GpuArtefact(profile, PROFILES[profile].devices, program, texts)
