"""The PoCL that pip installs, as a driver that compiles for the processor it runs on.

Its LLVM 14 calls a processor that is newer than itself "generic", a name that its own compiler then refuses. There a
copy of the library is used that says "x86-64-v3" instead: the function that asks LLVM, and a branch of it that is not
taken any more, have other bytes.
"""

import ctypes
import sysconfig
import tempfile
from functools import cache
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

PACKAGES = Path(sysconfig.get_path("purelib"))
LIBRARIES = PACKAGES / "pyopencl" / ".libs"

ASKS = "pocl_get_llvm_cpu_name"
CHANGES: dict[int, tuple[str, bytes]] = {
    # call llvm::sys::getHostCPUName; test rdx, rdx; je 0x40 -> lea rax, [0x40]; push 9; pop rdx
    0x06: ("e8058ab0034885d27430", bytes.fromhex("488d05330000006a095a")),
    # mov edi, 8; mov ebx, 7 -> the name
    0x40: ("bf08000000bb07000000", b"x86-64-v3\0"),
}
"""Where in that function: what PoCL 3.0 has there, and what takes its place."""


@cache
def pocl_driver() -> Path | None:
    """The library; None where PoCL is not installed. AssertionError for another PoCL that does not know the
    processor."""
    found = next(iter(sorted(LIBRARIES.glob("libpocl*.so*"))), None)
    if found is None:
        return None
    name = getattr(ctypes.CDLL(str(found)), ASKS)
    name.restype = ctypes.c_char_p
    return found if name() != b"generic" else _with_a_known_name(found)


def _with_a_known_name(library: Path) -> Path:
    packages = Path(_folder().name)
    (packages / "pocl_binary_distribution").symlink_to(PACKAGES / "pocl_binary_distribution")  # what it needs
    copy = packages / "pyopencl" / ".libs" / library.name
    copy.parent.mkdir(parents=True)
    content = bytearray(library.read_bytes())
    with library.open("rb") as file:
        elf = ELFFile(file)
        symbols = elf.get_section_by_name(".dynsym")
        assert isinstance(symbols, SymbolTableSection)
        symbol, *_ = symbols.get_symbol_by_name(ASKS) or []
        start = next(iter(elf.address_offsets(symbol["st_value"])))
    for place, (expected, new) in CHANGES.items():
        at = slice(start + place, start + place + len(new))
        assert content[at].hex() == expected, f"{library} is another PoCL than 3.0, and does not know this processor"
        content[at] = new
    copy.write_bytes(content)
    return copy


@cache
def _folder() -> "tempfile.TemporaryDirectory[str]":
    """Where the copy lies; it goes when the process ends."""
    return tempfile.TemporaryDirectory(prefix="pcc-pocl-")
