"""Instruction sets as data: vectors, registers, how they multiply, and what LLVM is told. One kernel source serves them
all."""

from pcc.codegen.isa.isa import ISAS, Isa, MultiplyAdd, isa_named

__all__ = ["ISAS", "Isa", "MultiplyAdd", "isa_named"]
