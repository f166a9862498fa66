"""What the libraries and runners are made of: needs, exports, alignment, protection."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from pcc.package.toolchain import RUNTIME
from pcc.target import TARGETS
from tests.toy import toy_package

NAMES = list(TARGETS)
API = sorted(set(re.findall(r"\b(pcc_\w+)\(", (RUNTIME / "pcc.h").read_text())))
OWN = [f"toy_{function}" for function in API]


@cache
def _elf(path: str) -> ELFFile:
    return ELFFile((toy_package() / path).open("rb"))


def _library(name: str) -> ELFFile:
    return _elf(f"lib/{name}/libtoy.so")


def _dynamic(name: str) -> dict[str, list[Any]]:
    entries: dict[str, list[Any]] = {}
    for tag in _library(name).get_section_by_name(".dynamic").iter_tags():  # type: ignore[union-attr]
        text = next(
            (getattr(tag, field) for field in ("needed", "soname", "runpath", "rpath") if hasattr(tag, field)),
            tag.entry.d_val,
        )
        entries.setdefault(tag.entry.d_tag, []).append(text)
    return entries


@pytest.mark.parametrize("name", NAMES)
def test_machine_and_needs(name: str) -> None:
    assert _library(name)["e_machine"] == {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}[TARGETS[name].arch]
    dynamic = _dynamic(name)
    assert dynamic["DT_NEEDED"] == (["libc.so"] if TARGETS[name].is_android else ["libc.so.6"])
    assert dynamic["DT_SONAME"] == ["libtoy.so"]
    assert not {"DT_TEXTREL", "DT_RPATH", "DT_RUNPATH", "DT_INIT", "DT_INIT_ARRAY", "DT_HASH", "DT_VERNEED"} & set(
        dynamic
    )
    assert dynamic["DT_FLAGS"][0] == 0x8  # BIND_NOW, and no TEXTREL


@pytest.mark.parametrize("name", NAMES)
def test_exports_the_interface_and_nothing_else(name: str) -> None:
    symbols = list(_library(name).get_section_by_name(".dynsym").iter_symbols())  # type: ignore[union-attr]
    exported = {symbol.name: symbol for symbol in symbols if symbol["st_shndx"] != "SHN_UNDEF"}
    assert sorted(exported) == [*API, *OWN]
    assert len(API) == 21
    for function, own in zip(API, OWN, strict=True):
        assert exported[function]["st_value"] == exported[own]["st_value"]
        assert exported[function]["st_info"] == exported[own]["st_info"]


@pytest.mark.parametrize("name", NAMES)
def test_calls_its_own_functions(name: str) -> None:
    """Not those of another model's library that was loaded before."""
    library = _library(name)
    symbols = library.get_section_by_name(".dynsym")
    bound = {
        symbols.get_symbol(entry["r_info_sym"]).name  # type: ignore[union-attr]
        for section in library.iter_sections("SHT_RELA")
        for entry in section.iter_relocations()  # type: ignore[attr-defined]
    }
    assert not {symbol for symbol in bound if "pcc_" in symbol}
    assert "calloc" in bound


@pytest.mark.parametrize("name", NAMES)
def test_segments(name: str) -> None:
    segments = list(_library(name).iter_segments())
    for segment in segments:
        if segment["p_type"] == "PT_LOAD":
            assert segment["p_align"] % 16384 == 0
            assert (segment["p_flags"] & 3) != 3, "a segment is writable and executable"
    kinds = {segment["p_type"]: segment for segment in segments}
    assert "PT_GNU_RELRO" in kinds
    assert kinds["PT_GNU_STACK"]["p_flags"] == 6


@pytest.mark.parametrize("name", NAMES)
def test_sections(name: str) -> None:
    library = _library(name)
    weights = library.get_section_by_name(".pcc_weights")
    assert weights is not None
    assert (weights["sh_flags"], weights["sh_addralign"]) == (2, 64)  # allocated, neither writable nor code
    assert weights["sh_addr"] % 64 == weights["sh_offset"] % 64 == 0
    assert weights.data()[:8] == b"pccweigh"
    assert library.get_section_by_name(".note.gnu.build-id") is not None
    assert not any(section.name.startswith(".debug") for section in library.iter_sections())


def test_android_note() -> None:
    note = _library("aarch64-android").get_section_by_name(".note.android.ident")
    assert note is not None
    assert note.data() == b"\x08\0\0\0\x04\0\0\0\x01\0\0\0Android\0\x18\0\0\0"


@pytest.mark.parametrize("name", NAMES)
def test_runner_is_static_and_has_no_weights(name: str) -> None:
    runner = _elf(f"bin/{name}/pcc-run")
    assert not any(segment["p_type"] in ("PT_INTERP", "PT_DYNAMIC") for segment in runner.iter_segments())
    assert runner.get_section_by_name(".pcc_weights") is None
    assert (toy_package() / f"bin/{name}/pcc-run").stat().st_mode & 0o111
    for segment in runner.iter_segments():
        if segment["p_type"] == "PT_LOAD":
            assert segment["p_align"] % 16384 == 0
    (stack,) = (segment for segment in runner.iter_segments() if segment["p_type"] == "PT_GNU_STACK")
    assert (stack["p_flags"], stack["p_memsz"]) == (6, 1 << 20)
    weights = _library(name).get_section_by_name(".pcc_weights").data()[64:]  # type: ignore[union-attr]
    assert weights[:64] not in Path(toy_package() / f"bin/{name}/pcc-run").read_bytes()
