"""Folders of the cache that have no module of their own."""

import os
import time
from pathlib import Path

import pytest

from pcc.cache import UNUSED_SECONDS, gpu_cache


def test_programs_of_gpus_go_when_unused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCC_CACHE", str(tmp_path))
    folder = gpu_cache()
    assert folder is not None
    old, recent = folder / "old.bin", folder / "recent.bin"
    for file in (old, recent):
        file.touch()
    month_ago = time.time() - UNUSED_SECONDS - 60
    os.utime(old, (month_ago, month_ago))
    assert gpu_cache() == folder
    assert sorted(folder.iterdir()) == [recent]


def test_no_programs_are_kept_where_the_cache_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PCC_CACHE", str(tmp_path / "file"))
    assert gpu_cache() is None
