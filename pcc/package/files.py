"""A package's files: their sizes and checksums, and how those that pcc reads whole are read."""

import hashlib
import os
from pathlib import Path
from stat import S_ISREG

from pcc.errors import PccError
from pcc.package.manifest import FileRecord

TEXT_BYTES = 64 << 20
"""More than any manifest or list of labels takes: what is longer is something else, and is not read to its end."""


def file_record(path: Path) -> FileRecord:
    """A file's SHA-256 and size in bytes."""
    with path.open("rb") as file:
        return FileRecord(sha256=hashlib.file_digest(file, "sha256").hexdigest(), size=path.stat().st_size)


def is_unchanged(path: Path, record: FileRecord) -> bool:
    """Whether a path is an ordinary file (no link) with the recorded contents."""
    status = path.lstat()
    return S_ISREG(status.st_mode) and status.st_size == record.size and file_record(path) == record


def read_text(path: Path) -> str:
    """A text in UTF-8. `PccError` in one line for what is no file (a pipe is not waited for, a device not read), is too long, or is not text.

    Raises OSError if there is nothing, or nothing that may be read.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not S_ISREG(os.fstat(file.fileno()).st_mode):
            raise PccError(f"{path} is not an ordinary file")
        content = file.read(TEXT_BYTES + 1)
    if len(content) > TEXT_BYTES:
        raise PccError(f"{path} is damaged: it has more than {TEXT_BYTES >> 20} MiB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise PccError(f"{path} is damaged: it is not text in UTF-8") from None
