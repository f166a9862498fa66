"""Where pcc keeps what can be made again: compiled kernels, downloaded weights."""

import os
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from pcc.errors import PccError

UNUSED_SECONDS = 30 * 24 * 3600
"""After so long what was compiled for an older pcc or another driver is removed."""


def cache_root() -> Path:
    """The cache's folder: ``$PCC_CACHE``, else ``$XDG_CACHE_HOME/pcc``, else ``~/.cache/pcc``. It need not exist
    yet."""
    if root := os.environ.get("PCC_CACHE"):
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pcc"


def gpu_cache() -> Path | None:
    """The folder, which exists, of programs that a GPU's driver built, and of notes which of them were right. What no
    run has used for a month is removed; the runtime marks what it uses. None where it cannot be written: it is only a
    help."""
    folder = cache_root() / "gpu"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.iterdir():
            with suppress(FileNotFoundError):  # another process removes it, too
                if time.time() - file.stat().st_mtime > UNUSED_SECONDS:
                    file.unlink()
    except OSError:
        return None
    return folder


@contextmanager
def writing_cache() -> Generator[None]:
    """`PccError` for what keeps the block from writing in the cache."""
    try:
        yield
    except OSError as error:
        raise PccError(
            f"cannot write the cache {cache_root()}: {error.strerror or error}; PCC_CACHE can name another folder"
        ) from error
