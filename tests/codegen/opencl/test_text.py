"""The texts of kernels are kept on disk."""

from pathlib import Path

import pytest

from pcc.codegen.opencl import text
from pcc.codegen.opencl.kernels.borders import ZeroBorders
from pcc.codegen.opencl.text import opencl_text
from pcc.dtype import FLOAT32


def test_texts_come_from_the_cache_and_damaged_ones_are_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PCC_CACHE", str(tmp_path))
    kernel, written = ZeroBorders(FLOAT32), []
    write = text._write
    monkeypatch.setattr(text, "_write", lambda kernel: written.append(kernel) or write(kernel))
    first = [opencl_text.__wrapped__(kernel) for _ in range(2)]
    (file,) = tmp_path.glob("kernels/*/*/kernel.cl")
    assert first == [file.read_text()] * 2
    file.write_text("no kernel")
    assert opencl_text.__wrapped__(kernel) == first[0] == file.read_text()
    assert written == [kernel, kernel]
