"""Sizes and checksums of a package's files."""

import hashlib
from pathlib import Path

from pcc.package.manifest import FileRecord


def file_record(path: Path) -> FileRecord:
    """A file's SHA-256 and size in bytes."""
    with path.open("rb") as file:
        return FileRecord(sha256=hashlib.file_digest(file, "sha256").hexdigest(), size=path.stat().st_size)
