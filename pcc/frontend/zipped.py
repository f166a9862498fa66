"""Zip archives of PyTorch: what they hold takes hardly more bytes than they have, so that none fills the memory."""

import zipfile
from pathlib import Path

from pcc.errors import PccError

MOST_COMPRESSED = 2**24
"""Bytes that an archive may grow by: PyTorch stores weights as they are and compresses the code of TorchScript
alone."""


def check_amount(zipped: zipfile.ZipFile, path: Path) -> None:
    """`PccError` for an archive that is compressed, or several of whose entries lie at one place."""
    amount, size = sum(entry.file_size for entry in zipped.infolist()), path.stat().st_size
    if amount > size + MOST_COMPRESSED:
        raise PccError(
            f"the archive has {size:,} bytes and would take {amount:,}: PyTorch compresses no weights; write it with "
            "PyTorch again"
        )
