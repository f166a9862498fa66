"""The C library of static runners: the files it is built of, and that a runner needs nothing else."""

import shutil
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from pcc.cache import cache_root
from pcc.errors import PccError
from pcc.package import libc
from pcc.progress import quiet
from pcc.target import TARGETS, host_target
from pcc.zig import zig_folder
from tests.toy import toy_package

ARCHITECTURES = sorted({target.arch for target in TARGETS.values()})


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_zig_has_every_file(arch: str) -> None:
    musl = zig_folder() / "lib/libc/musl/src"
    files = [
        libc._source(musl / folder, name, arch) for folder, names in libc.MUSL_FILES.items() for name in names.split()
    ]
    assert [str(file) for file in files if not file.is_file()] == []
    assert libc._source(musl / "thread", "clone", arch) == musl / "thread" / arch / "clone.s"
    assert libc._source(musl / "stdio", "printf", arch) == musl / "stdio" / "printf.c"


@pytest.mark.parametrize("name", TARGETS)
def test_a_runner_is_static_and_small(name: str) -> None:
    path = toy_package() / f"bin/{name}/pcc-run"
    with path.open("rb") as file:
        elf = ELFFile(file)
        kinds = {segment["p_type"]: segment for segment in elf.iter_segments()}
        assert elf["e_type"] == "ET_EXEC"
        assert not {"PT_INTERP", "PT_DYNAMIC"} & set(kinds)
        assert kinds["PT_GNU_STACK"]["p_memsz"] == 1 << 20  # what its threads get
        assert kinds["PT_GNU_STACK"]["p_flags"] == 6
        assert all(segment["p_align"] % 65536 == 0 for segment in elf.iter_segments() if segment["p_type"] == "PT_LOAD")
    assert path.stat().st_size < 200_000


def test_it_is_built_once_and_of_few_files() -> None:
    """The archive that the runners of this process were linked with: no second one is built, and it has no more than it
    names."""
    toy_package()
    said: list[str] = []
    archive = libc.libc_archive("x86_64", said.append)
    assert said == []
    assert archive.parent == cache_root() / "runtime"
    objects = subprocess.run(
        [shutil.which("ar") or pytest.skip("no ar"), "t", str(archive)], capture_output=True, text=True, check=True
    ).stdout.split()
    assert (
        len(objects) == sum(len(names.split()) for names in libc.MUSL_FILES.values()) + 3
    )  # the start, zig's functions, the compiler's support


def test_without_zig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PCC_CACHE", str(tmp_path))
    monkeypatch.setattr("pcc.zig.find_spec", lambda name: None)
    zig_folder.cache_clear()
    try:
        with pytest.raises(PccError, match="ziglang is not installed"):
            libc.libc_archive("x86_64", quiet)
    finally:
        zig_folder.cache_clear()
    assert not list(tmp_path.rglob("*.a"))


def test_the_runner_prints_numbers_and_reads_files() -> None:
    """Formatted output, files, threads and the clock of this C library, in one command each."""
    package = toy_package()
    runner = package / f"bin/{host_target().name}/pcc-run"
    done = subprocess.run(
        [runner, "selftest", "--threads", "3", "--json", package / "selftest"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"passed": true' in done.stdout
    failed = subprocess.run([runner, "bench", "--runs", "x"], capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stderr) == (
        2,
        "pcc-run: --runs x: a whole number, at least 1 and at most 1000000\n",
    )
