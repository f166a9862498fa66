"""What kernels need to know of an instruction set.

A new instruction set is a row in ``ISAS``, a target or processors that have it (`pcc.target`), a profile of what they cost (`pcc.codegen.machine`), a tile in
each table that is kept by lanes (``TILES`` of the dense kernels), and its check when a library starts (``runtime/cpu.c``). Kernels ask for the fields of its
row, never for its name; where it multiplies, loads or compares like none of those here, it needs a new field and kernels that ask.
"""

from dataclasses import dataclass

from pcc.errors import PccError


@dataclass(frozen=True)
class Isa:
    """An instruction set as fp32 kernels see it."""

    name: str
    lanes: int
    """fp32 values in one vector register."""
    registers: int
    """Vector registers."""
    multiply_by_lane: bool
    """Whether a fused multiply-add takes one lane of a vector as its factor (NEON's ``fmla v.4s, v.4s, v.s[i]``); else factors are broadcast from memory."""
    llvm_features: tuple[str, ...] = ()
    post_increment: bool = False
    """Whether a load steps its pointer (NEON's ``ldp q0, q1, [x0], #32``), which takes indices of pointer width; else addresses are base plus index."""
    nan_from_either: bool = False
    """Whether the maximum (minimum) instruction gives NaN when either operand is NaN (NEON's ``fmax``); else it gives its second operand (x86's ``maxps``)."""


ISAS: dict[str, Isa] = {
    isa.name: isa
    for isa in (
        Isa("avx512", lanes=16, registers=32, multiply_by_lane=False, llvm_features=("+avx512f", "+avx512vl", "+avx512dq", "+avx512bw", "+fma", "+avx2")),
        Isa("avx2", lanes=8, registers=16, multiply_by_lane=False, llvm_features=("+avx2", "+fma")),
        Isa("neon", lanes=4, registers=32, multiply_by_lane=True, llvm_features=("+neon",), post_increment=True, nan_from_either=True),
    )
}


def isa_named(name: str) -> Isa:
    """The instruction set of that name; `PccError` where there is none."""
    if name not in ISAS:
        raise PccError(f"unknown instruction set '{name}': choose one of {', '.join(ISAS)}")
    return ISAS[name]
