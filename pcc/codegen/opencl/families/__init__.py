"""Ways to compute convolutions and linear layers on a GPU, a file each; `pcc.codegen.family` lists them.

Families count what a schedule executes (`DeviceWork`); what that costs, a profile says (`pcc.codegen.opencl.profiles`).
"""

from typing import Protocol

from pcc.codegen.family import KernelFamily


class DeviceFamily(KernelFamily, Protocol):
    """A family for GPUs."""

    @property
    def border(self) -> int | None:
        """Rows of zeros that it reads around the planes in which its tensors lie (`pcc.codegen.opencl.planes`), beside
        those of a layer's padding; None where tensors may have any strides."""
        ...
