"""Packages that are damaged, incomplete, foreign or from the future: one line each."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pcc.errors import PccError
from pcc.package import open_package
from pcc.package.files import TEXT_BYTES, file_record, read_text
from tests.toy import PREPROCESSING, toy_package


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


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe\x00", b'{"schema_version": 1}', b"[]", b"3", b'{"schema_version": "x"}']
)
def test_damaged_manifest(copy: Path, content: bytes) -> None:
    (copy / "manifest.json").write_bytes(content)
    _refused(copy, r"manifest.json is damaged")


NESTED = "[" * 200_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preprocessing": {"size": 13}}, "manifest.json is damaged: preprocessing.resize: Field required"),
        ({"preprocessing": 3}, "manifest.json is damaged: preprocessing"),
        ({"preprocessing": PREPROCESSING | {"std": [0.0]}}, "std must not be zero"),
        ({"preprocessing": PREPROCESSING | {"mean": [float("nan")]}}, "mean.0: Input should be a finite number"),
        ({"preprocessing": PREPROCESSING | {"resize": 1 << 40}}, "resize: Input should be less than or equal to 16384"),
        ({"preprocessing": PREPROCESSING | {"channels": "RGBA"}}, "channels: Input should be 'RGB', 'BGR' or 'L'"),
        (
            {"files": {"../../etc/passwd": {"sha256": "", "size": 1}}},
            r"'../../etc/passwd' is not the path of a file in the package",
        ),
        ({"files": {"/etc/passwd": {"sha256": "", "size": 1}}}, "'/etc/passwd' is not the path"),
        ({"files": {"lib//x": {"sha256": "", "size": 1}}}, "'lib//x' is not the path"),
        ({"files": {"x" * 5000: {"sha256": "", "size": 1}}}, "is missing"),
        ({"labels": "../labels.txt"}, "labels: .*'../labels.txt' is not the path"),
        ({"selftest": {"folder": "/etc", "tolerance": 1}}, "selftest.folder: .*'/etc' is not the path"),
        ({"inputs": [{"name": "x", "shape": [-1]}]}, "inputs.0.shape.0: Input should be greater than 0"),
        ({"schema_version": "1" * 5000}, "schema_version"),
        ({"notes": float("inf")}, "notes"),
    ],
)
def test_manifests_that_say_what_cannot_be(copy: Path, change: dict[str, object], message: str) -> None:
    content = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**content, **change}))
    _refused(copy, message)


@pytest.mark.parametrize(
    "text",
    [
        NESTED,
        '{"notes": ' + NESTED,
        '{"preprocessing": {"a": ' + '{"a": ' * 10_000,
        '{"name": "\\ud800"}',
        "1" * 10_000,
    ],
)
def test_manifests_that_are_hard_to_read(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    _refused(copy, "manifest.json is damaged: ")


@pytest.mark.parametrize("name", ["manifest.json", "labels.txt"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (os.mkfifo, "is a pipe|is not an ordinary file"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device|is not an ordinary file"),
        (Path.mkdir, "Is a directory|is no regular file|is not an ordinary file"),
        (lambda path: path.symlink_to("absent"), "no such file|is not an ordinary file|is missing"),
        (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links|is not an ordinary file"),
    ],
)
def test_what_is_no_file(copy: Path, name: str, make: Callable[[Path], object], message: str) -> None:
    (copy / name).unlink()
    make(copy / name)
    _refused(copy, message)


def test_texts_that_are_too_long_or_none(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.touch()
    os.truncate(path, TEXT_BYTES + 1)
    with pytest.raises(PccError, match="long is larger than 67,108,864 bytes"):
        read_text(path)
    path.write_bytes(b"caf\xe9")
    with pytest.raises(PccError, match="long is damaged: it is not text in UTF-8"):
        read_text(path)


def test_labels_are_lines_whatever_is_in_them(copy: Path) -> None:
    (copy / "labels.txt").write_text("one\u2028line\n\nthree\x0b\n", encoding="utf-8")
    content = json.loads((copy / "manifest.json").read_text())
    content["files"]["labels.txt"] = json.loads(file_record(copy / "labels.txt").model_dump_json())
    (copy / "manifest.json").write_text(json.dumps(content))
    assert open_package(copy).labels() == ["one\u2028line", "", "three\x0b"]


def test_newer_schema(copy: Path) -> None:
    content = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({"schema_version": content["schema_version"] + 1, "unheard": "of"}))
    _refused(copy, r"written by a newer pcc \(schema 3, this one reads up to 2\): update pcc")


def test_a_package_of_schema_1_has_no_layers(copy: Path) -> None:
    content = json.loads((copy / "manifest.json").read_text()) | {"schema_version": 1}
    for target in content["targets"]:
        target["calls"] = [call for layer in target.pop("layers") for call in layer["calls"]]
    (copy / "manifest.json").write_text(json.dumps(content))
    assert [target.layers for target in open_package(copy).manifest.targets] == [()] * len(content["targets"])


def test_unknown_fields_of_the_same_schema_are_ignored(copy: Path) -> None:
    content = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**content, "added_later": 1}))
    open_package(copy).verify()


@pytest.mark.parametrize(
    "name", ["lib/aarch64-android/libtoy.so", "labels.txt", "selftest/input_0.bin", "include/pcc.h"]
)
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
    with pytest.raises(
        PccError,
        match="has no library for x86_64-linux, only for aarch64-linux, aarch64-android: "
        "compile with --target x86_64-linux",
    ):
        open_package(copy).target("x86_64-linux")


def test_paths_that_the_manifest_does_not_list() -> None:
    with pytest.raises(PccError, match="lists no file"):
        open_package(toy_package()).file("../../etc/passwd")
