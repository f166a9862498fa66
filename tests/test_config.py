"""Where settings lie."""

from pathlib import Path

import pytest

from pcc.config import config_root
from pcc.errors import PccError


def test_a_file_is_no_folder_of_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCC_CONFIG", str(tmp_path / "later"))
    assert config_root() == tmp_path / "later"
    (tmp_path / "later").write_text("mine")
    with pytest.raises(
        PccError, match=r"PCC_CONFIG: .*later is no folder: name the folder of pcc's settings, or unset it"
    ):
        config_root()
