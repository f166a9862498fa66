"""Kernels of other floating-point types than fp32, from the same source.

A kernel is written for fp32: pointers to ``f32``, vectors of ``k.lanes``, constants by ``k.splat``. `InType` makes it
one whose tensors hold another floating-point type, and which computes in that type or still in fp32. What is loaded
from a tensor becomes what the kernel computes in, what is stored is rounded to what the tensor holds
(`pcc.codegen.builder`); where both are one type, nothing is converted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Kernel, Param
from pcc.dtype import FLOAT32, DType

if TYPE_CHECKING:
    from pcc.codegen.builder import KernelBuilder


@dataclass(frozen=True)
class InType:
    """A kernel with ``tensors`` (the names of parameters) of other types, that computes in ``arithmetic``."""

    kernel: Kernel
    arithmetic: DType
    tensors: tuple[tuple[str, DType], ...]

    @property
    def name(self) -> str:
        """``_f16`` is all of fp16, ``_f16_bias_f32`` but for the bias, ``_f16_in_f32`` computes in fp32, ``_w_f16`` is
        all of fp32 but for ``w``."""
        held = {**dict.fromkeys(_pointers(self.kernel), FLOAT32), **dict(self.tensors)}
        others = [(name, dtype.short) for name, dtype in held.items() if dtype != self.arithmetic]
        if len(others) == len(held) and len(kinds := {kind for _, kind in others}) == 1:
            return f"{self.kernel.name}_{kinds.pop()}_in_{self.arithmetic.short}"
        computed = "" if self.arithmetic == FLOAT32 else f"_{self.arithmetic.short}"
        return self.kernel.name + computed + "".join(f"_{name}_{kind}" for name, kind in others)

    @property
    def params(self) -> tuple[Param, ...]:
        types = dict(self.tensors)
        return tuple(
            replace(param, kind=f"{types[param.name].short}*") if param.name in types else param
            for param in self.kernel.params
        )

    def body(self, k: "KernelBuilder") -> None:
        self.kernel.body(k)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        """The kernel's own, on fp32 copies; what it changes is rounded and put back."""
        wide = {name: np.asarray(args[name]).astype(FLOAT32.numpy) for name, _ in self.tensors}
        before = {param.name: wide[param.name].copy() for param in self.params if param.writes and param.name in wide}
        self.kernel.reference({**args, **wide}, begin, end)
        for name, values in before.items():
            changed = wide[name].view(np.uint32) != values.view(np.uint32)
            np.asarray(args[name])[changed] = wide[name][changed]


def _pointers(kernel: Kernel) -> list[str]:
    return [param.name for param in kernel.params if param.is_pointer and param.dtype == FLOAT32]


def in_type(kernel: Kernel, tensors: Mapping[str, DType], arithmetic: DType) -> Kernel:
    """The kernel for what its tensors hold: itself where all of them are what it says, and it computes in fp32.

    ``tensors`` are the types of its pointers; those that it says are fp32 may be of any floating-point type.
    """
    others = {name: tensors[name] for name in _pointers(kernel) if tensors[name] != FLOAT32 and tensors[name].is_float}
    return InType(kernel, arithmetic, tuple(others.items())) if others or arithmetic != FLOAT32 else kernel
