"""Folders of the cache that have no module of their own."""

import os
import time
from pathlib import Path

import pytest

from pcc.cache import UNUSED_SECONDS, gpu_cache


def test_programs_of_gpus_go_when_unused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCC_CACHE", str(tmp_path))
    old, recent = gpu_cache() / "old.bin", gpu_cache() / "recent.bin"
    for file in (old, recent):
        file.touch()
    month_ago = time.time() - UNUSED_SECONDS - 60
    os.utime(old, (month_ago, month_ago))
    assert sorted(gpu_cache().iterdir()) == [recent]
