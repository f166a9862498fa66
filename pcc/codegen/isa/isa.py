"""What kernels need to know of an instruction set.

A new instruction set is a row in ``ISAS``, a target or processors that have it (`pcc.target`; ``GENERIC_CPUS`` names
one for each form of a generic library), a profile of what they cost (`pcc.codegen.machine`), a tile in each table that
is kept by lanes (``TILES`` of the dense kernels), and its check when a library starts (``runtime/cpu.c``). Kernels ask
for the fields of its row, never for its name; where it multiplies, loads or compares like none of those here, it needs
a new field and kernels that ask.
"""

from dataclasses import dataclass

from pcc.dtype import FLOAT16, FLOAT32, DType
from pcc.errors import PccError


@dataclass(frozen=True)
class MultiplyAdd:
    """A vector instruction that adds products to a sum."""

    factors: DType
    sum: DType
    products: int = 1
    """Neighbouring products that one lane of the sum takes: 4 for a dot product of bytes (``vpdpbusd``, ``sdot``)."""
    by_lane: bool = False
    """Whether one lane of a vector can be the second factor (NEON's ``fmla v.4s, v.4s, v.s[i]``); else factors are
    broadcast from memory."""


@dataclass(frozen=True)
class Isa:
    """An instruction set as kernels see it."""

    name: str
    vector_bytes: int
    """Of one vector register."""
    registers: int
    """Vector registers."""
    multiply_adds: tuple[MultiplyAdd, ...]
    llvm_features: tuple[str, ...] = ()
    post_increment: bool = False
    """Whether a load steps its pointer (NEON's ``ldp q0, q1, [x0], #32``), which takes indices of pointer width; else
    addresses are base plus index."""
    gathers: bool = False
    """Whether an instruction loads a vector from places that lie in another."""
    expands: bool = False
    """Whether masks are bits in registers of their own, and an instruction puts neighbouring elements into the lanes
    that one names (``vexpandps``)."""
    nan_from_either: bool = False
    """Whether the maximum (minimum) instruction gives NaN when either operand is NaN (NEON's ``fmax``); else it gives
    its second operand (x86's ``maxps``)."""

    def lanes(self, dtype: DType) -> int:
        """Elements in one vector register."""
        return self.vector_bytes // dtype.bytes

    def computes_in(self, dtype: DType) -> bool:
        """Whether it multiplies vectors of a type."""
        return any(instruction.factors == dtype for instruction in self.multiply_adds)

    def multiply_add(self, factors: DType) -> MultiplyAdd:
        """How it multiplies elements of a type; `PccError` where it cannot."""
        for instruction in self.multiply_adds:
            if instruction.factors == factors:
                return instruction
        raise PccError(
            f"{self.name} does not multiply {factors}, only "
            f"{', '.join(str(instruction.factors) for instruction in self.multiply_adds)}"
        )


_FMA = MultiplyAdd(FLOAT32, FLOAT32)
_FMA_BY_LANE = MultiplyAdd(FLOAT32, FLOAT32, by_lane=True)
_FMA_FP16_BY_LANE = MultiplyAdd(FLOAT16, FLOAT16, by_lane=True)

ISAS: dict[str, Isa] = {
    isa.name: isa
    for isa in (
        Isa(
            "avx512",
            64,
            32,
            (_FMA,),
            llvm_features=("+avx512f", "+avx512vl", "+avx512dq", "+avx512bw", "+fma", "+avx2", "+f16c"),
            gathers=True,
            expands=True,
        ),
        Isa("avx2", 32, 16, (_FMA,), llvm_features=("+avx2", "+fma", "+f16c"), gathers=True),
        Isa("neon", 16, 32, (_FMA_BY_LANE,), llvm_features=("+neon",), post_increment=True, nan_from_either=True),
        Isa(
            "neon-fp16",
            16,
            32,
            (_FMA_BY_LANE, _FMA_FP16_BY_LANE),
            llvm_features=("+neon", "+fullfp16"),
            post_increment=True,
            nan_from_either=True,
        ),
    )
}


def isa_named(name: str) -> Isa:
    """The instruction set of that name; `PccError` where there is none."""
    if name not in ISAS:
        raise PccError(f"unknown instruction set '{name}': choose one of {', '.join(ISAS)}")
    return ISAS[name]
