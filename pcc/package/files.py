"""A package's files: their sizes and checksums, and how those that pcc reads whole are read."""

import hashlib
from pathlib import Path
from stat import S_ISREG

from pcc.errors import PccError
from pcc.files import read_limited
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
    """A text in UTF-8. `PccError` in one line for what is missing or no file, is too long (`read_limited`), or is not
    text."""
    try:
        return read_limited(path, "package file", TEXT_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        raise PccError(f"{path} is damaged: it is not text in UTF-8") from None
