"""The cache of compiled kernels: complete or not there."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pcc.cache import UNUSED_SECONDS
from pcc.codegen.kernels.copy import CopyRows
from pcc.codegen.objects import CompiledKernel, compile_kernels
from pcc.errors import PccError
from pcc.target import ARM_CPUS, X86_CPUS, target_named


def compile_copy() -> CompiledKernel:
    return compile_kernels([CopyRows(unit=True)], target_named("x86_64-linux"))[0]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCC_CACHE", str(tmp_path))


@pytest.mark.parametrize("cpu", X86_CPUS | ARM_CPUS)
def test_llvm_knows_every_processor(cpu: str, capfd: pytest.CaptureFixture[str]) -> None:
    """It makes code for any other as for the oldest one, and only prints that it did."""
    compile_kernels([CopyRows(unit=True)], target_named("x86_64-linux" if cpu in X86_CPUS else "aarch64-linux", cpu))
    assert capfd.readouterr().err == ""


def test_entries_are_complete_and_made_again_when_they_lost_files(tmp_path: Path) -> None:
    first = compile_copy()
    assert not first.from_cache
    assert sorted(path.name for path in first.object.parent.iterdir()) == [
        "kernel.ll",
        "kernel.o",
        "kernel.s",
        "kernel.tir",
        "sha256",
    ]
    code = first.object.read_bytes()
    assert compile_copy().from_cache
    first.object.unlink()
    again = compile_copy()
    assert not again.from_cache
    assert again.object.read_bytes() == code
    os.truncate(again.object, 100)
    assert not compile_copy().from_cache
    assert again.object.read_bytes() == code
    assert compile_copy().from_cache
    assert [path.name for path in first.object.parents[1].iterdir()] == [first.object.parent.name], (
        "nothing half-made stays"
    )


def test_unused_generations_go_when_a_new_one_begins(tmp_path: Path) -> None:
    old, recent = tmp_path / "kernels" / "old", tmp_path / "kernels" / "recent"
    for folder in (old, recent):
        (folder / "kernel").mkdir(parents=True)
    month_ago = time.time() - UNUSED_SECONDS - 60
    os.utime(old, (month_ago, month_ago))
    compile_copy()
    assert not old.exists()
    assert recent.exists()


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PCC_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        PccError, match=r"cannot write the cache .*file: Not a directory; PCC_CACHE can name another folder"
    ):
        compile_copy()
    monkeypatch.setenv("PCC_CACHE", str(tmp_path))
    monkeypatch.setattr("pcc.codegen.kernel_cache._ROOM", 1 << 60)
    with pytest.raises(PccError, match="No space left on device"):
        compile_copy()


WAITING = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pcc.codegen.objects import _begin_worker

if __name__ == "__main__":
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin_worker) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(300)
"""


def test_workers_end_with_a_process_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text(WAITING)
    with subprocess.Popen([sys.executable, tmp_path / "waiting.py"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = Path("/proc", process.stdout.readline().strip())
        assert worker.exists()
        process.kill()
    end = time.monotonic() + 60
    while worker.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not worker.exists()
