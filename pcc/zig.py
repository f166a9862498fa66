"""Runs zig, the compiler and linker that comes from pip."""

import os
import signal
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from pcc.cache import cache_root, writing_cache
from pcc.errors import PccError


@cache
def zig_folder() -> Path:
    """The folder of the program and of its ``lib``."""
    spec = find_spec("ziglang")  # the module is not imported: that runs zig
    if spec is None or spec.origin is None:
        raise PccError(
            "the Python package ziglang is not installed, and pcc compiles and links with it: pip install ziglang"
        )
    return Path(spec.origin).parent


def zig() -> list[str]:
    """The command that is zig. The program itself: ``python -m ziglang`` starts a Python first."""
    return [str(zig_folder() / "zig")]


def zig_cache() -> Path:
    """Where zig keeps what it compiled."""
    folder = cache_root() / "zig"
    with writing_cache():
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def run_tool(command: Sequence[str]) -> None:
    """Runs a compiler or linker; `PccError` with its first complaint if it fails."""
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(zig_cache()), "ZIG_LOCAL_CACHE_DIR": str(zig_cache())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    said = f"{Path(command[0]).name} {' '.join(command[1:4])}"
    if done.returncode == -signal.SIGBUS:  # linkers map the file that they write
        raise PccError(f"{said} was stopped by a bus error: is the disk full?")
    if done.returncode:
        complaints = (
            [line for line in done.stderr.splitlines() if "error" in line.lower()]
            or done.stderr.splitlines()
            or [f"status {done.returncode}"]
        )
        raise PccError(f"{said} failed: {complaints[0].strip()}")
