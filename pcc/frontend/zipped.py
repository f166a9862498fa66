"""Zip archives of PyTorch: what they hold takes no more bytes than they have, so that none fills the memory."""

import zipfile
from pathlib import Path

from pcc.errors import PccError


def check_amount(zipped: zipfile.ZipFile, path: Path) -> None:
    """`PccError` for an archive that is compressed, or several of whose entries lie at one place."""
    amount, size = sum(entry.file_size for entry in zipped.infolist()), path.stat().st_size
    if amount > size:
        raise PccError(f"'{path}' has {size:,} bytes and would take {amount:,}: PyTorch compresses no archive; write it with PyTorch again")
