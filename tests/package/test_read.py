"""Packages that are damaged, incomplete, foreign or from the future: one line each."""

import json
import shutil
from pathlib import Path

import pytest

from pcc.errors import PccError
from pcc.package import open_package
from tests.toy import toy_package


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_package(), tmp_path / "copy"))


def _refused(path: Path, message: str) -> None:
    with pytest.raises(PccError, match=message) as caught:
        open_package(path).verify()
    assert "\n" not in str(caught.value)


def test_not_a_package(tmp_path: Path) -> None:
    _refused(tmp_path, "is not a pcc package: it has no manifest.json")
    _refused(tmp_path / "absent", "is not a pcc package")
    (tmp_path / "file").write_text("")
    _refused(tmp_path / "file", "is not a pcc package")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b'{"schema_version": 1}', b"[]", b"3", b'{"schema_version": "x"}'])
def test_damaged_manifest(copy: Path, content: bytes) -> None:
    (copy / "manifest.json").write_bytes(content)
    _refused(copy, r"manifest.json is damaged")


def test_newer_schema(copy: Path) -> None:
    content = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({"schema_version": content["schema_version"] + 1, "unheard": "of"}))
    _refused(copy, r"written by a newer pcc \(schema 2, this one reads up to 1\): update pcc")


def test_unknown_fields_of_the_same_schema_are_ignored(copy: Path) -> None:
    content = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**content, "added_later": 1}))
    open_package(copy).verify()


@pytest.mark.parametrize("name", ["lib/aarch64-android/libtoy.so", "labels.txt", "selftest/input_0.bin", "include/pcc.h"])
def test_missing_and_damaged_files(copy: Path, name: str) -> None:
    path = copy / name
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    _refused(copy, f"{name} is damaged")
    path.write_bytes(bytes([content[0] ^ 128]) + content[1:])
    _refused(copy, f"{name} is damaged")
    path.unlink()
    _refused(copy, f"{name} is missing")


def test_foreign_target(copy: Path) -> None:
    content = json.loads((copy / "manifest.json").read_text())
    content["targets"] = content["targets"][1:]
    (copy / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(PccError, match="has no library for x86_64-linux, only for aarch64-linux, aarch64-android: compile with --target x86_64-linux"):
        open_package(copy).target("x86_64-linux")


def test_paths_that_the_manifest_does_not_list() -> None:
    with pytest.raises(PccError, match="lists no file"):
        open_package(toy_package()).file("../../etc/passwd")
