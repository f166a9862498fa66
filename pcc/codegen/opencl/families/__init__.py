"""Ways to compute convolutions and linear layers on a GPU, a file each; `pcc.codegen.family` lists them.

Families count what a schedule executes (`DeviceWork`); what that costs, a profile says (`pcc.codegen.opencl.profiles`).
"""

from typing import Protocol

from pcc.codegen.family import KernelFamily


class DeviceFamily(KernelFamily, Protocol):
    """A family for GPUs."""

    @property
    def planes(self) -> bool:
        """Whether its tensors lie in planes (`pcc.codegen.opencl.planes`); else they may have any strides."""
        ...
