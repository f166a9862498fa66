"""Scratch folders: where something is made before it takes its place, or that only lives while a command runs.

They are removed when their block ends. A process that is killed cannot do that: the next one that makes a scratch
folder of the same kind in the same place removes those whose maker is gone. The maker holds a lock (flock) on a file in
the folder, which the system frees when the process ends, however it ends; process numbers, which are used again, play
no part. What is not certain to be pcc's and abandoned stays.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pcc.errors import PccError

_LOCK, _WORK = "pcc.lock", "work"

Rescue = Callable[[Path], None]
"""Takes out of a scratch folder what must not go with it. If it raises OSError the folder stays, and the next process
tries again."""


def keep_nothing(work: Path) -> None:
    """The rescue where everything can be made again."""


@contextmanager
def scratch_folder(parent: Path, kind: str = "scratch", rescue: Rescue = keep_nothing) -> Generator[Path]:
    """An empty folder in ``parent``, removed when the block ends, after ``rescue``. Abandoned ones of this kind are
    removed first.

    Raises OSError if ``parent`` cannot be written.
    """
    _clear_abandoned(parent, kind, rescue)
    folder, lock = _make(parent, kind)
    try:
        (folder / _WORK).mkdir()
        yield folder / _WORK
    finally:
        _remove(folder, rescue)
        os.close(lock)


@contextmanager
def temporary_folder() -> Generator[Path]:
    """A scratch folder where the system keeps temporary files; `PccError` if none can be made there."""
    place = Path(tempfile.gettempdir())
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(scratch_folder(place))
        except OSError as error:
            raise PccError(
                f"cannot write the temporary folder {place}: {error.strerror or error}; TMPDIR can name another folder"
            ) from None
        yield folder


def remove_tree(folder: Path) -> None:
    """Removes a folder as far as it can be removed, folders that may not be written included."""
    for path, _, _ in os.walk(folder):
        with suppress(OSError):
            os.chmod(path, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _make(parent: Path, kind: str) -> tuple[Path, int]:
    """A new folder and the descriptor that holds its lock. Who clears at this moment may be faster, and takes it: then
    another one."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".pcc-{kind}-", dir=parent))
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue
        except OSError:
            folder.rmdir()
            raise
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # held by who clears
            os.close(lock)
            continue
        except OSError:  # a file system without locks: nobody clears there
            pass
        if _is_at(folder / _LOCK, lock):
            return folder, lock
        os.close(lock)


def _clear_abandoned(parent: Path, kind: str, rescue: Rescue) -> None:
    """Removes folders of this kind that this user's processes left, as far as that can be done."""
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(f".pcc-{kind}-") and entry.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    _clear(Path(entry.path), rescue)


def _clear(folder: Path, rescue: Rescue) -> None:
    """Removes a scratch folder if nobody holds its lock."""
    if folder.lstat().st_uid != os.geteuid():
        return
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        folder.rmdir()  # its maker was killed before it had a lock; if it is not empty it is something else, and stays
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(folder / _LOCK, lock):
            _remove(folder, rescue)
    finally:
        os.close(lock)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file still lies under its name."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _remove(folder: Path, rescue: Rescue) -> None:
    """Removes a scratch folder whose lock is held: the lock last, so that what is left when this is stopped is found
    again."""
    work = folder / _WORK
    try:
        rescue(work)
    except OSError:
        return
    remove_tree(work)
    if not work.exists():
        with suppress(OSError):
            (folder / _LOCK).unlink()
            folder.rmdir()
