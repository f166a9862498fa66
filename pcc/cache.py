"""Where pcc keeps what can be made again: compiled kernels, downloaded weights."""

import os
from pathlib import Path


def cache_root() -> Path:
    """The cache's folder: ``$PCC_CACHE``, else ``$XDG_CACHE_HOME/pcc``, else ``~/.cache/pcc``. It need not exist yet."""
    if root := os.environ.get("PCC_CACHE"):
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pcc"
