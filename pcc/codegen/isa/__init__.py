"""Instruction sets as data: lanes, registers and what LLVM is told. One kernel source serves them all."""

from pcc.codegen.isa.isa import ISAS, Isa, isa_named

__all__ = ["ISAS", "Isa", "isa_named"]
