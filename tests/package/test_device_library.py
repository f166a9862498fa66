"""Libraries with code for a GPU, for every target: what they need and export, and how much larger they are."""

from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from pcc.codegen.emit_c import lay_out_weights
from pcc.package.toolchain import Toolchain
from pcc.package.weights import write_weights_object
from pcc.target import TARGETS
from tests.toy import toy_program

HANDWRITTEN = Path(__file__).parents[1] / "runtime"
NODELETE = 8
LARGEST_RUNTIME = 49_000
"""Bytes that the runtime of a GPU may add to a library, with the toy model's programs."""


def _library(folder: Path, name: str, device: str, *, has_gpu: bool) -> Path:
    """The toy model of the runtime's tests, with weights that lie in the library."""
    target = TARGETS[name]
    toolchain, objects = Toolchain(target), [folder / "model.o", folder / "weights.o"]
    sources = {"model": f'#define pcc_weight_values toy_values\n#include "{HANDWRITTEN / "toy_model.c"}"\n'}
    if has_gpu:
        sources["device"] = device
        objects.append(folder / "device.o")
    for what, text in sources.items():
        (folder / f"{what}.c").write_text(text)
        toolchain.compile_model(folder / f"{what}.c", folder / f"{what}.o")
    write_weights_object(lay_out_weights(toy_program()), target.arch, folder / "weights.o")
    library = folder / f"libtoy{int(has_gpu)}.so"
    toolchain.link_library("toy", objects, library, has_gpu=has_gpu)
    return library


@pytest.mark.parametrize("name", list(TARGETS))
def test_links(name: str, tmp_path: Path) -> None:
    device = (HANDWRITTEN / "toy_device.c").read_text()
    plain, both = (_library(tmp_path, name, device, has_gpu=has_gpu) for has_gpu in (False, True))
    found = []
    for library in (plain, both):
        with library.open("rb") as file:
            elf = ELFFile(file)
            needed = [tag.needed for tag in elf.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")]  # type: ignore[union-attr]
            symbols = list(elf.get_section_by_name(".dynsym").iter_symbols())  # type: ignore[union-attr]
            exported = sorted(symbol.name for symbol in symbols if symbol["st_shndx"] != "SHN_UNDEF")
            found.append((needed, exported))
            threads = [symbol for symbol in symbols if symbol.name.startswith("pthread_")]
            assert threads
            assert {symbol["st_info"]["bind"] for symbol in threads} == {"STB_WEAK"}  # glibc before 2.34 may have none
            flags = [tag["d_val"] for tag in elf.get_section_by_name(".dynamic").iter_tags("DT_FLAGS_1")]  # type: ignore[union-attr]
            stays = bool(flags) and bool(flags[0] & NODELETE)
            assert stays == (library is both), "a driver that hangs has a thread in it"
    (plain_needs, plain_exports), (needs, exports) = found
    libdl = "libdl.so" if TARGETS[name].is_android else "libdl.so.2"
    assert needs == [*plain_needs, libdl]
    assert exports == plain_exports
    assert b"libOpenCL" not in plain.read_bytes()
    assert 0 < both.stat().st_size - plain.stat().st_size < LARGEST_RUNTIME
