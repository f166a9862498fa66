"""What the processor does in a GPU's program, as a program's kernel: a step of the processor's own program, or a copy
between the two memories."""

from dataclasses import dataclass

from pcc.codegen.kernel import Param
from pcc.dtype import DType


@dataclass(frozen=True)
class HostKernel:
    """A `pcc.codegen.kernel.KernelHead`. It is never compiled: the library has it."""

    name: str
    params: tuple[Param, ...]
    step: int | None = None
    """The number of the processor's call; None for a copy of ``x`` to ``y``."""


COPY_TO_PROCESSOR, COPY_TO_GPU = "copy-to-processor", "copy-to-gpu"


def copy_kernel(dtype: DType, *, to_gpu: bool) -> HostKernel:
    """Copies a tensor of any layouts."""
    kind = f"{dtype.short}*"
    return HostKernel(COPY_TO_GPU if to_gpu else COPY_TO_PROCESSOR, (Param("x", kind), Param("y", kind, writes=True)))
