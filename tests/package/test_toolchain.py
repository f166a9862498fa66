"""Which compiler is used, what it is told, and how it complains."""

import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from pcc.codegen.emit_c import lay_out_weights
from pcc.codegen.objects import compile_kernels
from pcc.errors import PccError
from pcc.package.toolchain import Toolchain, run_tool
from pcc.package.weights import write_weights_object
from pcc.target import TARGETS
from tests.toy import toy_package, toy_program

ANDROID = TARGETS["aarch64-android"]
STAND_IN = """#!{python}
import os, sys
words = sys.argv[1:]
print(*words, file=open("{log}", "a"))
if "-Wl,text" in words:  # zig's driver does not know these
    at = words.index("-Wl,text")
    del words[at - 1 : at + 1]
    words.remove("-Wl,-Bsymbolic-functions")
    words = [word for word in words if not word.startswith("-Wl,--defsym")]
libc = "gnu.2.17" if "-pie" in words else "musl"  # zig has no bionic
os.execv(sys.executable, [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-" + libc, *words])
"""


def test_errors_of_the_compiler_are_one_line(tmp_path: Path) -> None:
    source = tmp_path / "model.c"
    source.write_text("int main(void) { return undeclared; }\nint other = unknown;\n")
    with pytest.raises(PccError, match=r"model\.c:1:25: error: use of undeclared identifier 'undeclared'") as caught:
        Toolchain(TARGETS["x86_64-linux"]).compile_model(source, tmp_path / "model.o")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model.c"]


def test_weights_object(tmp_path: Path) -> None:
    program = toy_program()
    weights = lay_out_weights(program)
    for arch, machine in (("x86_64", "EM_X86_64"), ("aarch64", "EM_AARCH64")):
        write_weights_object(weights, arch, tmp_path / "weights.o")
        with (tmp_path / "weights.o").open("rb") as file:
            elf = ELFFile(file)
            assert (elf["e_machine"], elf["e_type"]) == (machine, "ET_REL")
            section = elf.get_section_by_name(".pcc_weights")
            assert section is not None
            assert section["sh_size"] == 64 + weights.nbytes
            (symbol,) = elf.get_section_by_name(".symtab").get_symbol_by_name("pcc_embedded_weights")  # type: ignore[union-attr]
            assert (symbol["st_size"], symbol["st_other"]["visibility"]) == (64 + weights.nbytes, "STV_HIDDEN")
            first = next(iter(program.constants.values()))
            assert section.data()[64 : 64 + first.nbytes] == first.tobytes()


def test_ndk_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ANDROID_NDK_HOME", str(tmp_path))
    with pytest.raises(
        PccError, match=r"ANDROID_NDK_HOME=.* has no toolchains/llvm/prebuilt/\*/bin/aarch64-linux-android24-clang"
    ):
        Toolchain(ANDROID).link_library("toy", [], tmp_path / "libtoy.so")


def test_a_linker_on_a_full_disk() -> None:
    with pytest.raises(PccError, match="is the disk full"):
        run_tool([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGBUS)"])


def test_ndk_compiles_and_links_android_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in for the NDK's clang notes that it was asked, and lets zig do the work."""
    clang = tmp_path / "toolchains/llvm/prebuilt/linux-x86_64/bin/aarch64-linux-android24-clang"
    clang.parent.mkdir(parents=True)
    log = tmp_path / "log"
    clang.write_text(STAND_IN.format(python=sys.executable, log=log))
    clang.chmod(0o755)
    source = toy_package() / "ir/aarch64-android/model.c"  # made without the NDK
    monkeypatch.setenv("ANDROID_NDK_HOME", str(tmp_path))
    program, library = toy_program(), tmp_path / "libtoy.so"
    weights = lay_out_weights(program)
    write_weights_object(weights, "aarch64", tmp_path / "weights.o")
    toolchain = Toolchain(ANDROID)
    toolchain.compile_model(source, tmp_path / "model.o")
    kernels = [kernel.object for kernel in compile_kernels(program.kernels, ANDROID)]
    assert not log.exists()
    toolchain.link_library("toy", [tmp_path / "model.o", *kernels, tmp_path / "weights.o"], library)
    calls = log.read_text().splitlines()
    assert any("context.c" in call for call in calls)
    assert not any("android_note.c" in call for call in calls), "the NDK's own start file brings the note"
    assert "-Wl,max-page-size=16384" in calls[-1]
    with library.open("rb") as file:
        symbols = ELFFile(file).get_section_by_name(".dynsym")
        assert isinstance(symbols, SymbolTableSection)
        names = [symbol.name for symbol in symbols.iter_symbols() if symbol["st_shndx"] != "SHN_UNDEF"]
    assert "pcc_run" in names
    tables = Path(__file__).parents[1] / "runtime" / "toy_device.c"
    toolchain.compile_model(tables, tmp_path / "device.o")
    objects = [tmp_path / "model.o", *kernels, tmp_path / "device.o"]
    assert toolchain.link_gpu_runner(objects, tmp_path / "pcc-run-gpu")
    assert {"-pie", "-ldl"} <= set(log.read_text().splitlines()[-1].split())
    log.unlink()
    Toolchain(TARGETS["x86_64-linux"]).compile_model(source, tmp_path / "model.o")
    assert not log.exists()
