"""Packages take their place whole or not at all, and nothing of the user's goes with the older one."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcc.errors import PccError
from pcc.package import Manifest, new_package, open_package, package_files
from pcc.package.files import file_record
from pcc.package.publish import _exchange
from pcc.target import TARGETS
from tests.toy import toy_package

OLD = {"labels.txt": "old", "lib/x/libnet.so": "old", "ir/000_import.txt": "old", "ir/x/model.c": "old"}
NEW = {"labels.txt": "new", "lib/x/libnet.so": "new", "ir/000_import.txt": "new", "include/net.h": "new"}


def fill(folder: Path, files: Mapping[str, str]) -> None:
    """A package of these files, for what publishing cares about."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    records = {name: file_record(folder / name) for name in files}
    manifest = Manifest(pcc_version="0", name="net", inputs=(), outputs=(), targets=(), files=records)
    (folder / "manifest.json").write_text(manifest.model_dump_json())


def publish(out: Path, files: Mapping[str, str]) -> None:
    with new_package(out, ["manifest.json", *files]) as staging:
        fill(staging, files)


def tree(folder: Path) -> dict[str, str]:
    """Every path below a folder, and what it holds."""
    return {
        path.relative_to(folder).as_posix(): f"-> {os.readlink(path)}"
        if path.is_symlink()
        else "folder"
        if path.is_dir()
        else path.read_text()
        for path in folder.rglob("*")
    }


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An older package."""
    publish(tmp_path / "out", OLD)
    return tmp_path / "out"


@pytest.fixture(params=["exchange", "two renames"])
def way(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of replacing a folder: in one step, and for file systems that have no such step."""
    if request.param == "two renames":
        monkeypatch.setattr("pcc.package.publish._exchange", lambda first, second: False)
        return request.param
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    exchanged = _exchange(tmp_path / "first", tmp_path / "second")
    for name in ("first", "second"):
        (tmp_path / name).rmdir()
    if not exchanged:
        pytest.skip("not run: this file system cannot exchange folders")
    return request.param


def refused(out: Path, message: str, files: Mapping[str, str] = NEW) -> None:
    before = tree(out) if os.path.isdir(out) else None
    with pytest.raises(PccError, match=message) as caught, new_package(out, ["manifest.json", *files]):
        pytest.fail("the block must not run")
    assert "\n" not in str(caught.value)
    assert before == (tree(out) if os.path.isdir(out) else None)
    assert not os.path.isdir(out.parent) or not list(out.parent.glob(".pcc-*"))


def test_replaces_an_older_package_only_when_done(out: Path, way: str) -> None:
    with new_package(out) as staging:
        fill(staging, NEW)
        assert (out / "labels.txt").read_text() == "old"
    assert {name: text for name, text in tree(out).items() if text != "folder" and name != "manifest.json"} == NEW
    assert not (out / "ir/x").exists(), "a folder that became empty"
    open_package(out).verify()
    with pytest.raises(RuntimeError), new_package(out):
        raise RuntimeError
    open_package(out).verify()
    assert list(out.parent.iterdir()) == [out]
    assert out.stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_what_is_the_users_stays(out: Path, way: str) -> None:
    (out / "notes.txt").write_text("mine")
    (out / "ir/x/notes.txt").write_text("mine")
    (out / "photos/deep").mkdir(parents=True)
    (out / "photos/deep/cat.jpg").write_text("mine")
    (out / "photos/deep").chmod(0o500)
    (out / "photos/empty").mkdir()
    (out / "lib/x/link").symlink_to("libnet.so")
    (out / "dangling").symlink_to("/absent")
    (out / "elsewhere").symlink_to(out.parent)
    os.utime(out / "photos", (1e9, 1e9))
    out.chmod(0o750)
    before = {
        path: path.lstat().st_ino for path in (out / "notes.txt", out / "photos/deep/cat.jpg", out / "lib/x/link")
    }
    publish(out, NEW)
    found = tree(out)
    assert {name: text for name, text in found.items() if text == "new"} == NEW
    assert {name for name, text in found.items() if text == "mine"} == {
        "notes.txt",
        "ir/x/notes.txt",
        "photos/deep/cat.jpg",
    }
    assert (found["lib/x/link"], found["dangling"], found["elsewhere"]) == (
        "-> libnet.so",
        "-> /absent",
        f"-> {out.parent}",
    )
    assert found["photos/empty"] == "folder"
    assert before == {path: path.lstat().st_ino for path in before}, "the very files, not copies"
    assert (out.stat().st_mode & 0o777, (out / "photos/deep").stat().st_mode & 0o777) == (0o750, 0o500)
    assert (out / "photos").stat().st_mtime == 1e9
    assert list(out.parent.iterdir()) == [out]
    publish(out, OLD)
    assert tree(out)["notes.txt"] == "mine"
    (out / "photos/deep").chmod(0o700)


PATHS = st.lists(
    st.sampled_from(["a", "ir", "x", "lib", "labels.txt", "000_import.txt", "b c", "é"]), min_size=1, max_size=3
).map("/".join)


@settings(max_examples=40)
@given(st.dictionaries(PATHS, st.sampled_from(["file", "folder", "link"]), max_size=5))
def test_anything_of_the_users_stays_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, additions: dict[str, str]
) -> None:
    out = tmp_path_factory.mktemp("given") / "out"
    publish(out, OLD)
    for name, kind in additions.items():
        path = out / name
        if os.path.lexists(path) or any(parent.is_file() or parent.is_symlink() for parent in path.parents):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if kind == "folder" else path.symlink_to("/absent") if kind == "link" else path.write_text("mine")
    package = {"manifest.json", *OLD, "ir", "ir/x", "lib", "lib/x"}
    mine = {name: text for name, text in tree(out).items() if name not in package}
    before = tree(out)
    refusal = None
    try:
        publish(out, NEW)
    except PccError as error:
        refusal = str(error)
    after = tree(out)
    if refusal:
        assert refusal.endswith("needs its place: move it away")
        assert after == before
    else:
        assert {name: after[name] for name in mine} == mine
        assert {name for name, text in after.items() if text != "folder"} == {
            "manifest.json",
            *NEW,
            *(name for name, text in mine.items() if text != "folder"),
        }
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    shutil.rmtree(out.parent)


def _write(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        (
            "include/net.h",
            _write("mine"),
            "include/net.h is not of the package there, and the new package needs its place: move it away",
        ),
        ("include", _write("mine"), "include is not of the package there"),
        ("include/net.h", Path.mkdir, "include/net.h is not of the package there"),
        ("include", lambda path: path.symlink_to("/tmp"), "include is not of the package there"),
        ("labels.txt", _write("mine"), "labels.txt was changed since pcc wrote it, and may be precious"),
        ("ir/x/model.c", _write("new"), "ir/x/model.c was changed"),
        ("labels.txt", lambda path: (path.unlink(), path.symlink_to("/etc/passwd")), "labels.txt was changed"),
        ("labels.txt", lambda path: (path.unlink(), os.mkfifo(path)), "labels.txt was changed"),
        ("labels.txt", lambda path: (path.unlink(), path.mkdir()), "labels.txt is not of the package there"),
    ],
)
def test_users_files_in_the_way_are_refused_before_any_work(
    out: Path, name: str, make: Callable[[Path], object], message: str
) -> None:
    (out / name).parent.mkdir(exist_ok=True)
    make(out / name)
    with pytest.raises(PccError, match=message) as caught, new_package(out, ["manifest.json", *NEW]):
        pytest.fail("the block must not run")
    assert "\n" not in str(caught.value)
    assert os.path.lexists(out / name)
    assert list(out.parent.iterdir()) == [out]


def test_a_folder_of_the_package_that_became_a_link_is_not_followed(out: Path, tmp_path: Path) -> None:
    moved = (out / "lib").rename(tmp_path / "moved")
    (out / "lib").symlink_to(moved)
    refused(out, "lib is not of the package there")
    publish(out, {"labels.txt": "new"})
    assert tree(moved) == {"x": "folder", "x/libnet.so": "old"}
    assert (out / "lib").is_symlink()


def test_a_file_that_comes_in_the_way_meanwhile(out: Path) -> None:
    def compile_slowly() -> None:
        with new_package(out, list(NEW)) as staging:
            fill(staging, NEW)
            (out / "include").mkdir()
            (out / "include/net.h").write_text("mine")

    with pytest.raises(PccError, match=r"cannot keep .*include/net.h beside the new package \(File exists\)"):
        compile_slowly()
    assert (tree(out)["include/net.h"], tree(out)["labels.txt"]) == ("mine", "old")
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "{}",
        '{"name": "my web application", "short_name": "app", "icons": []}',
        "[1]",
        "\x00",
        '{"schema_version": 1, "files": {}}',
        "[" * 100_000,
    ],
)
def test_a_foreign_manifest_is_not_a_package(tmp_path: Path, manifest: str) -> None:
    out = tmp_path / "application"
    (out / "icons").mkdir(parents=True)
    (out / "icons/cat.png").write_text("mine")
    (out / "manifest.json").write_text(manifest)
    refused(out, "exists and is not a pcc package that may be replaced")


def test_a_manifest_that_lists_what_is_not_its_own(out: Path) -> None:
    precious = out.parent / "precious"
    precious.write_text("data")
    content = json.loads((out / "manifest.json").read_text())
    for name in ("../precious", str(precious), "lib/../../precious", ""):
        content["files"][name] = json.loads(file_record(precious).model_dump_json())
        (out / "manifest.json").write_text(json.dumps(content))
        refused(out, "is not the path of a file in the package")
        del content["files"][name]
    assert precious.read_text() == "data"


def test_places_that_are_refused(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("data")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/precious").write_text("data")
    (tmp_path / "link").symlink_to("out")
    (tmp_path / "nowhere").symlink_to("absent")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "file", "file exists and is not a pcc package")
    refused(tmp_path / "full", "full exists and is not a pcc package")
    refused(tmp_path / "pipe", "pipe exists and is not a pcc package")
    (tmp_path / "pipe").unlink()
    refused(tmp_path / "link", rf"link is a symbolic link to {out}: name that folder itself")
    refused(tmp_path / "nowhere", "nowhere is a symbolic link to")
    refused(tmp_path / "file/out", r"cannot write .*/file/out: Not a directory")
    refused(Path("/proc/out"), r"cannot write /proc/out: ")
    refused(tmp_path / ("x" * 300), "File name too long")
    refused(tmp_path / "a\0b", "null byte|null character")
    with pytest.raises(PccError, match=r"^/ is the folder you are in, or one above it"), new_package(Path("/")):
        pytest.fail("the block must not run")
    monkeypatch.chdir(out)
    refused(Path("."), "is the folder you are in")
    refused(Path(".."), "is the folder you are in, or one above it")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(PccError, match="Permission denied"), new_package(tmp_path / "fresh"):
        pytest.fail("the block must not run")
    tmp_path.chmod(0o755)


def test_names_that_the_file_system_does_not_take(tmp_path: Path) -> None:
    for length, fits in ((249, True), (250, False), (5000, False)):
        files = package_files("n" * length, [TARGETS["x86_64-linux"]])
        if fits:
            with new_package(tmp_path / "out", files):
                pass
        else:
            with pytest.raises(
                PccError, match="is too long a name for this file system: choose a shorter name for the model"
            ):
                with new_package(tmp_path / "out", files):
                    pytest.fail("the block must not run")
    with new_package(tmp_path / ("o" * 255)) as staging:
        fill(staging, NEW)
    assert [path.name for path in tmp_path.iterdir() if path.name != "out"] == ["o" * 255]


def test_an_empty_folder_may_become_a_package(tmp_path: Path, way: str) -> None:
    out = tmp_path / "empty"
    out.mkdir(mode=0o700)
    publish(out, NEW)
    open_package(out).verify()
    assert out.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == [out]


def test_packages_of_today_can_be_replaced(tmp_path: Path) -> None:
    """A whole package, and one that an earlier pcc wrote: the same schema, no field more than it had."""
    out = Path(shutil.copytree(toy_package(), tmp_path / "out"))
    publish(out, NEW)
    assert not (out / "selftest").exists()


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"

    def interrupted(error: type[BaseException]) -> None:
        with new_package(out) as staging:
            (staging / "half").write_text("done")
            raise error

    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error):
            interrupted(error)
        assert list(out.parent.iterdir()) == []


def test_a_full_disk_is_one_line_and_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    def compile_with(error: OSError) -> None:
        with new_package(tmp_path / "out") as staging:
            (staging / "half").write_text("done")
            raise error

    with pytest.raises(PccError, match=r"cannot write .*/out: No space left on device"):
        compile_with(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(FileNotFoundError, match=r"weights\.pt"):
        compile_with(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "weights.pt"))
    assert list(tmp_path.iterdir()) == []


COMPILES = """
import sys
from pathlib import Path
from tests.package import test_publish
from pcc.package import publish
if sys.argv[2] == "two renames":
    publish._exchange = lambda first, second: False
while True:
    for text in ("old", "new"):
        test_publish.publish(Path(sys.argv[1]), {f"lib/{i}.so": text for i in range(20)})
    print("ready", flush=True)
"""


def test_killed_at_any_moment(out: Path, way: str) -> None:
    """kill -9 while packages replace each other: one of them is there, whole, with the user's files; the next run
    clears what was left."""
    (out / "notes.txt").write_text("mine")
    (out / "photos").mkdir()
    (out / "photos/cat.jpg").write_text("mine")
    numbers, interrupted = random.Random(0), 0
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", COMPILES, str(out), way], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(numbers.random() / 5)
            process.send_signal(signal.SIGKILL)
        interrupted += len(list(out.parent.iterdir())) > 1
        if way == "exchange":
            check(out)
        with new_package(out) as staging:
            check(out)
            assert len(list(out.parent.glob(".pcc-package-*"))) == 1
            fill(staging, {"lib/0.so": "old"})
        assert list(out.parent.iterdir()) == [out]
    assert interrupted


def check(out: Path) -> None:
    package = open_package(out)
    package.verify()
    assert len({(out / name).read_text() for name in package.manifest.files}) == 1
    assert ((out / "notes.txt").read_text(), (out / "photos/cat.jpg").read_text()) == ("mine", "mine")


@pytest.mark.parametrize("renames", [1, 2])
def test_killed_between_the_two_renames(out: Path, renames: int) -> None:
    """Where folders cannot be exchanged: the old package goes back to its place; if the new one has it, later files of
    the user's follow."""
    (out / "notes.txt").write_text("mine")
    text = f"""
import os, signal
from pathlib import Path
from tests.package import test_publish
from pcc.package import publish
publish._exchange = lambda first, second: False
rename, count = Path.rename, 0
def counted(path, target):
    global count
    rename(path, target)
    count += 1
    if count == 1:
        (target / "added.txt").write_text("mine")
    if count == {renames}:
        os.kill(os.getpid(), signal.SIGKILL)
Path.rename = counted
test_publish.publish(Path({str(out)!r}), test_publish.NEW)
"""
    done = subprocess.run([sys.executable, "-c", text], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -signal.SIGKILL
    assert out.exists() == (renames == 2)
    with new_package(out) as staging:
        found = tree(out)
        fill(staging, NEW)
    assert found["labels.txt"] == ("old" if renames == 1 else "new")
    assert (found["notes.txt"], found["added.txt"]) == ("mine", "mine")
    assert list(out.parent.iterdir()) == [out]


def test_what_the_user_does_while_folders_change_places_is_kept(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (out / "notes.txt").write_text("first")
    (out / "read.txt").write_text("first")

    def meanwhile(first: Path, second: Path) -> bool:
        (out / "added.txt").write_text("mine")
        (out / "notes.tmp").write_text("second")
        os.utime(out / "notes.tmp", (2e9, 2e9))
        (out / "notes.tmp").replace(out / "notes.txt")  # as editors save
        return _exchange(first, second)

    monkeypatch.setattr("pcc.package.publish._exchange", meanwhile)
    publish(out, NEW)
    found = tree(out)
    assert (found["added.txt"], found["notes.txt"], found["read.txt"], found["labels.txt"]) == (
        "mine",
        "second",
        "first",
        "new",
    )
    assert list(out.parent.iterdir()) == [out]
