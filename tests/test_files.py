"""Files that users name."""

import os
import re
import socket
import stat
from pathlib import Path

import pytest

from pcc.errors import PccError
from pcc.files import read_limited, save_text, write_atomically


def test_a_file_of_the_largest_size(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_limited(tmp_path / "file", "photo", 5) == b"12345"
    with pytest.raises(PccError, match=r"photo .*file is larger than 4 bytes"):
        read_limited(tmp_path / "file", "photo", 4)


def test_a_size_that_a_file_does_not_say() -> None:
    assert read_limited(Path("/proc/self/status"), "status", 100_000)


def test_what_is_no_file(tmp_path: Path) -> None:
    """A pipe that nobody writes into would wait, and the device that is all zeros would never end."""
    os.mkfifo(tmp_path / "pipe")
    socket.socket(socket.AF_UNIX).bind(str(tmp_path / "socket"))
    (tmp_path / "dangling").symlink_to("nothing")
    for path, message in (
        (tmp_path, "cannot be read: Is a directory"),
        (tmp_path / "pipe", "is a pipe: give a file"),
        (tmp_path / "socket", "cannot be read: No such device or address"),
        (Path("/dev/zero"), "is a device: give a file"),
        (tmp_path / "dangling", "no such file"),
        (tmp_path / "file" / "file", "no such file"),
        (tmp_path / ("n" * 300), "cannot be read: File name too long"),
        (tmp_path / "zero\0byte", "cannot be read: embedded null byte"),
    ):
        with pytest.raises(PccError) as error:
            read_limited(path, "photo", 100)
        assert str(error.value).startswith("photo ")
        assert str(error.value).endswith(message)
        assert "\n" not in str(error.value)
        assert "\0" not in str(error.value)


def test_a_file_that_a_killed_process_began(tmp_path: Path) -> None:
    """It goes with the next write of that file; one that is being written stays, and so does what has another name."""
    path = tmp_path / "log.csv"
    left, other = tmp_path / ".log.csv.pcc-abc.part", tmp_path / ".log.csv.mine.part"
    left.write_text("half")
    other.write_text("mine")

    def write(temporary: Path) -> None:
        assert not left.exists()
        write_atomically(path, lambda inner: inner.write_text("inner"))
        assert temporary.exists()
        temporary.write_text("outer")

    write_atomically(path, write)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        "log.csv": "outer",
        ".log.csv.mine.part": "mine",
    }
    with pytest.raises(ZeroDivisionError):
        write_atomically(path, lambda temporary: 1 / 0)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".log.csv.mine.part", "log.csv"]


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is no file"):
        write_atomically(tmp_path / "pipe", lambda path: path.write_text("x"))
    assert (tmp_path / "pipe").is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


def test_permissions_and_links_stay(tmp_path: Path) -> None:
    private, link = tmp_path / "private", tmp_path / "link"
    private.touch(mode=0o600)
    link.symlink_to(private)
    before = os.umask(0o027)
    try:
        write_atomically(link, lambda path: path.write_text("x"))
        write_atomically(tmp_path / "new", lambda path: path.write_text("x"))
    finally:
        os.umask(before)
    assert link.is_symlink()
    assert private.read_text() == "x"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (private, tmp_path / "new")] == [0o600, 0o640]


def test_what_cannot_be_saved_is_named(tmp_path: Path) -> None:
    save_text(tmp_path / "folder" / "file", "é")
    assert (tmp_path / "folder" / "file").read_bytes() == b"\xc3\xa9"
    below = tmp_path / "folder" / "file" / "below"
    for what, named in ((None, str(below)), ("the notes", "the notes")):
        with pytest.raises(PccError, match=f"^cannot write {re.escape(named)}: File exists$"):
            save_text(below, "x", what)
