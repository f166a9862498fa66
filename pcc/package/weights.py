"""The weights as an object file, written directly: a compiler would hold hundreds of megabytes in memory to copy them.

The file is a minimal ELF relocatable: one read-only section `.pcc_weights` and the symbol ``pcc_embedded_weights`` at
its start.
"""

import struct
from pathlib import Path

from pcc.codegen.emit_c import WEIGHTS_HEADER_BYTES, Weights, weight_chunks
from pcc.codegen.program import ALIGNMENT

SYMBOL = "pcc_embedded_weights"
MACHINES = {"x86_64": 62, "aarch64": 183}
"""ELF's numbers (e_machine)."""

_HEADER, _SECTION, _SYMBOL = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQIIQQ"), struct.Struct("<IBBHQQ")
_PROGBITS, _SYMTAB, _STRTAB, _ALLOC = 1, 2, 3, 2
_GLOBAL_OBJECT, _HIDDEN = 0x11, 2


def write_weights_object(weights: Weights, arch: str, path: Path) -> None:
    """Writes the constants as an object file for ``arch``, behind the header that the runtime's ``struct pcc_weights``
    describes."""
    names = ["", ".pcc_weights", ".symtab", ".strtab", ".note.GNU-stack", SYMBOL]
    strings = b"".join(name.encode() + b"\0" for name in names)
    name_at = {name: strings.index(name.encode() + b"\0") for name in names[1:]}
    start, size = ALIGNMENT, WEIGHTS_HEADER_BYTES + weights.nbytes
    symbols_at = start + size + -size % 8
    symbols = _SYMBOL.pack(0, 0, 0, 0, 0, 0) + _SYMBOL.pack(name_at[SYMBOL], _GLOBAL_OBJECT, _HIDDEN, 1, 0, size)
    strings_at = symbols_at + len(symbols)
    sections_at = strings_at + len(strings) + -(strings_at + len(strings)) % 8
    sections = [
        _SECTION.pack(0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        _SECTION.pack(name_at[".pcc_weights"], _PROGBITS, _ALLOC, 0, start, size, 0, 0, ALIGNMENT, 0),
        _SECTION.pack(name_at[".symtab"], _SYMTAB, 0, 0, symbols_at, len(symbols), 3, 1, 8, _SYMBOL.size),
        _SECTION.pack(name_at[".strtab"], _STRTAB, 0, 0, strings_at, len(strings), 0, 0, 1, 0),
        _SECTION.pack(name_at[".note.GNU-stack"], _PROGBITS, 0, 0, strings_at, 0, 0, 0, 1, 0),
    ]
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)  # 64 bits, little-endian, version 1
    header = _HEADER.pack(
        identity, 1, MACHINES[arch], 1, 0, 0, sections_at, 0, _HEADER.size, 0, 0, _SECTION.size, len(sections), 3
    )
    with path.open("wb") as file:
        file.write(header)
        file.write(b"pccweigh" + weights.nbytes.to_bytes(8, "little") + weights.digest + bytes(16))
        for chunk in weight_chunks(weights):
            file.write(chunk)
        file.seek(symbols_at)
        file.write(symbols + strings)
        file.seek(sections_at)
        file.write(b"".join(sections))
