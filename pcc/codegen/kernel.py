"""What a kernel is: a C function over a range of work items, with a TIR body and a numpy meaning.

A kernel is a frozen dataclass. Its fields are what the machine code is specialised to (tile, epilogue, taps unrolled or
not); everything else (sizes, strides, tables) is an argument, so layers share kernels. The C signature is ``void
SYMBOL(PARAMS..., int32_t begin, int32_t end)``: the caller's thread pool hands out ranges of ``[0, work)``, in any
order and at the same time.

The memory contract: pointers are aligned as their buffers are (64 bytes at a buffer's start, an element in general); a
kernel may *read* up to `READ_SLACK` bytes past the end of any tensor it is given, and up to `READ_LEAD` bytes before
its start, and must *write* exactly the elements it owns. Where planes have whole cache lines
(`pcc.codegen.program.has_whole_lines`), the rest of a plane's last line is owned with the plane, and holds junk.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pcc.dtype import DTYPES, DType

if TYPE_CHECKING:
    from pcc.codegen.builder import KernelBuilder

READ_SLACK = 256
"""Bytes that may be read past the end of every buffer (arena, constants)."""

READ_LEAD = 64
"""Bytes that may be read before the start of every buffer."""

Argument = np.ndarray | int | float


@dataclass(frozen=True)
class Param:
    """One parameter of a kernel: a number (``kind`` is the short name of an element type, ``i32``) or a pointer to
    elements (``f32*``).

    ``writes`` marks pointers through which the kernel stores.
    """

    name: str
    kind: str = "i32"
    writes: bool = False

    @property
    def is_pointer(self) -> bool:
        return self.kind.endswith("*")

    @property
    def dtype(self) -> DType:
        """The type of the number, or of the elements."""
        return next(dtype for dtype in DTYPES.values() if dtype.short == self.kind.removesuffix("*"))

    @property
    def c_type(self) -> str:
        if not self.is_pointer:
            return self.dtype.c
        return f"{self.dtype.c}*" if self.writes else f"const {self.dtype.c}*"


class KernelHead(Protocol):
    """What a program has to know of a kernel, of whatever machine it is."""

    @property
    def name(self) -> str:
        """A C identifier, made from the fields alone: ``pcc_conv_dense_m8n2_relu``."""
        ...

    @property
    def params(self) -> tuple[Param, ...]:
        """In order; of a CPU's kernel, those before ``begin`` and ``end``."""
        ...


class Kernel(KernelHead, Protocol):
    """See the module's text. Implementations are frozen dataclasses; equal kernels are compiled once."""

    def body(self, k: "KernelBuilder") -> None:
        """Emits the TIR of the function through ``k``."""
        ...

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        """The same function on numpy: each pointer is a flat array that starts where the pointer points (longer than
        what is used)."""
        ...


def symbol(kernel: Kernel, isa: str) -> str:
    """The C symbol of a kernel for an instruction set: a library may have it for several."""
    return f"{kernel.name}_{isa.replace('-', '_')}"
