"""Scratch folders: gone when their block ends, and when their maker was killed; never anybody else's."""

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pcc.errors import PccError
from pcc.scratch import scratch_folder, temporary_folder

MAKER = """
import sys, time
from pathlib import Path
from pcc.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "deep").mkdir()
    (folder / "deep/half").write_text("done")
    (folder / "deep").chmod(0o500)
    print("ready", flush=True)
    time.sleep(600)
"""


@contextmanager
def maker(parent: Path) -> Generator[subprocess.Popen[str]]:
    """A process that holds a scratch folder."""
    with subprocess.Popen([sys.executable, "-c", MAKER, str(parent)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_goes_with_its_block(tmp_path: Path) -> None:
    def use(error: type[BaseException] | None) -> None:
        with scratch_folder(tmp_path) as folder:
            assert not list(folder.iterdir())
            (folder / "file").write_text("")
            if error:
                raise error

    use(None)
    assert not list(tmp_path.iterdir())
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error):
            use(error)
        assert not list(tmp_path.iterdir())


def test_a_killed_makers_goes_and_a_living_ones_stays(tmp_path: Path) -> None:
    with maker(tmp_path) as living, maker(tmp_path) as killed:
        assert len(list(tmp_path.iterdir())) == 2
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert len(list(tmp_path.iterdir())) == 2
        with scratch_folder(tmp_path):
            assert len(list(tmp_path.iterdir())) == 2
        (left,) = tmp_path.iterdir()
        assert (left / "work/deep/half").read_text() == "done"
        living.kill()
        living.wait()
    with scratch_folder(tmp_path, "another-kind"):
        assert left.exists()
    with scratch_folder(tmp_path) as folder, scratch_folder(tmp_path) as second:
        assert not left.exists()
        assert folder != second
    assert not list(tmp_path.iterdir())


def test_what_pcc_did_not_make_stays(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "work").mkdir(parents=True)
    (elsewhere / "pcc.lock").touch()
    place = tmp_path / "place"
    (place / ".pcc-scratch-notes").mkdir(parents=True)
    (place / ".pcc-scratch-notes/text").write_text("mine")
    (place / ".pcc-scratch-file").write_text("mine")
    (place / ".pcc-scratch-link").symlink_to(elsewhere)
    (place / ".pcc-scratch-odd/pcc.lock").mkdir(parents=True)
    (place / ".other").mkdir()
    (place / ".pcc-scratch-empty").mkdir()
    with scratch_folder(place):
        pass
    assert sorted(path.name for path in place.iterdir()) == [
        ".other",
        ".pcc-scratch-file",
        ".pcc-scratch-link",
        ".pcc-scratch-notes",
        ".pcc-scratch-odd",
    ]
    assert (place / ".pcc-scratch-notes/text").read_text() == "mine"
    assert (elsewhere / "work").exists()


def test_a_rescue_that_cannot_be_done_leaves_the_folder_to_the_next(tmp_path: Path) -> None:
    def refuse(work: Path) -> None:
        raise OSError

    with scratch_folder(tmp_path, "kind", refuse) as folder:
        (folder / "precious").write_text("data")
    assert (folder / "precious").read_text() == "data"
    found = []
    with scratch_folder(tmp_path, "kind", lambda work: found.extend(work.glob("*"))):
        pass
    assert found == [folder / "precious"]
    assert not list(tmp_path.iterdir())


def test_many_makers_at_once(tmp_path: Path) -> None:
    """Who clears never takes a folder from under a maker, though it sees it half made."""
    text = "import sys\nfrom pathlib import Path\nfrom pcc.scratch import scratch_folder\n"
    text += (
        "for _ in range(200):\n  with scratch_folder(Path(sys.argv[1])) as a:\n    (a / 'x').write_text('y'); assert "
        "(a / 'x').read_text() == 'y'\n"
    )
    several = [subprocess.Popen([sys.executable, "-c", text, str(tmp_path)]) for _ in range(4)]
    assert [process.wait(timeout=120) for process in several] == [0] * 4
    assert not list(tmp_path.iterdir())


def test_no_temporary_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    with (
        pytest.raises(
            PccError,
            match=r"cannot write the temporary folder .*absent: No such file or directory; "
            "TMPDIR can name another folder",
        ),
        temporary_folder(),
    ):
        pytest.fail("the block must not run")


def test_lock_is_not_inherited(tmp_path: Path) -> None:
    """A program that is started meanwhile and outlives pcc does not keep the folder."""
    with scratch_folder(tmp_path):
        descriptors = {
            os.readlink(f"/proc/self/fd/{name}"): int(name)
            for name in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{name}")
        }
        (lock,) = (number for path, number in descriptors.items() if path.endswith("pcc.lock"))
        assert not os.get_inheritable(lock)
