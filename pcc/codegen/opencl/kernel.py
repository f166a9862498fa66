"""What a kernel for a GPU is: a function that every work-item of a range of up to three dimensions runs once.

A device kernel is a frozen dataclass, as `pcc.codegen.kernel.Kernel` is. A pointer is the start of a whole buffer;
where a tensor begins in it is a number argument, so that a host binds buffers and numbers and nothing else.

Work-items run in any order. An item may *read* past the end of a tensor as far as `SLACK_ROWS` rows of it, which its
buffer holds, and *writes* only what it owns.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from pcc.codegen.kernel import Argument, KernelHead
from pcc.codegen.range import Range
from pcc.dtype import DType

if TYPE_CHECKING:
    from pcc.codegen.opencl.builder import DeviceKernelBuilder


LANES = 4
"""Numbers of a vector."""


class DeviceKernel(KernelHead, Protocol):
    """See the module's text. Equal kernels are compiled once."""

    @property
    def arithmetic(self) -> DType:
        """What it computes in; what its tensors hold is converted to it and from it."""
        ...

    def body(self, k: "DeviceKernelBuilder") -> None:
        """Emits what a work-item does."""
        ...

    def reference(self, args: Mapping[str, Argument], range: Range) -> None:
        """The same on numpy: each pointer is a flat array, the whole buffer."""
        ...


def types_symbol(held: DType, arithmetic: DType) -> str:
    """What tensors hold, and what a kernel computes in where that is another type, as part of its name."""
    return held.short if held == arithmetic else f"{held.short}_in_{arithmetic.short}"
