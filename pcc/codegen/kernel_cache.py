"""What kernels were compiled to, kept on disk.

The cache is ``kernels/GENERATION/KERNEL/`` under `cache_root`: a generation is what one state of the sources and of TVM
makes. An entry is made beside its place and renamed, so that it is complete or not there, whoever else compiles; one
that was damaged since is made again. Generations that nothing has used for a month are removed when a new one begins.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from errno import ENOSPC
from functools import cache
from importlib.metadata import version
from pathlib import Path

from pcc.cache import UNUSED_SECONDS, cache_root
from pcc.scratch import scratch_folder

_SEAL = "sha256"
"""The file of an entry with the checksum of the others: after a crash, or on a disk that was full, they may be
short."""

_ROOM = 8 << 20
"""Bytes that the disk must have left for a kernel, far more than one takes: LLVM ends the process when a write
fails."""


@cache
def generation() -> str:
    """Changes whenever TVM does, or a source that kernels are made from: what other code made is never taken from the
    cache."""
    digest = hashlib.sha256(f"{version('apache-tvm')}|{version('apache-tvm-ffi')}".encode())
    package = Path(__file__).parents[1]
    for source in sorted([*package.glob("codegen/**/*.py"), *package.glob("ir/*.py"), package / "dtype.py"]):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def use_generation() -> None:
    """Marks this generation as used; a new one takes the place of those that nothing has used for a month."""
    folder = cache_root() / "kernels" / generation()
    is_new = not folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    if is_new:
        for other in folder.parent.iterdir():
            with suppress(FileNotFoundError):  # another process removes it, too
                if time.time() - other.stat().st_mtime > UNUSED_SECONDS:
                    shutil.rmtree(other, ignore_errors=True)


def entry_of(key: str) -> Path:
    """The folder of what a text says all about: the kernel, and what it is compiled for."""
    return cache_root() / "kernels" / generation() / hashlib.sha256(key.encode()).hexdigest()[:32]


def is_intact(folder: Path) -> bool:
    """Whether an entry holds what was written there."""
    try:
        return (folder / _SEAL).read_text() == _checksum(folder)
    except (OSError, ValueError):
        return False


def _checksum(folder: Path) -> str:
    files = sorted(file for file in folder.iterdir() if file.name != _SEAL)
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def make_entry(folder: Path, build: Callable[[Path], object]) -> None:
    """Puts what ``build`` writes into a folder in an entry's place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(folder.parent) as scratch:
        fresh = scratch / folder.name
        fresh.mkdir()
        if shutil.disk_usage(fresh).free < _ROOM:
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        build(fresh)
        (fresh / _SEAL).write_text(_checksum(fresh))
        if folder.exists() and not is_intact(folder):  # it is damaged
            with suppress(FileNotFoundError):  # another process mends it, too
                folder.rename(scratch / "damaged")
        try:
            fresh.rename(folder)
        except OSError:  # another process made the same kernel meanwhile
            if not is_intact(folder):
                raise
