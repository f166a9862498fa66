"""Reading what a user names: a file of its right kind and of a size that makes sense, or one line that says what is
wrong; and writing files whole."""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from pcc.errors import PccError

_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def read_limited(path: Path, what: str, limit: int) -> bytes:
    """The bytes of a regular file of at most ``limit`` bytes. ``what`` names it in errors: ``recipe``, ``photo``.

    Never waits: pipes, devices and folders are refused, whatever is or is not in them. Raises `PccError` in one line
    that begins with ``what`` and the path.
    """
    try:
        # Without O_NONBLOCK opening a pipe would wait for who writes into it.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            kind = stat.S_IFMT(os.fstat(file.fileno()).st_mode)
            if kind != stat.S_IFREG:
                raise PccError(f"{what} {path} is {_KINDS.get(kind, 'no regular file')}: give a file")
            # One byte more than is allowed: a file may grow, and those of /proc do not know their size.
            content = file.read(limit + 1)
    except FileNotFoundError:
        raise PccError(f"{what} {path}: no such file") from None
    except OSError as error:
        raise PccError(f"{what} {path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # a zero byte in the name
        raise PccError(f"{what} {str(path)!r} cannot be read: {error}") from None
    if len(content) > limit:
        raise PccError(f"{what} {path} is larger than {limit:,} bytes")
    return content


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Makes ``path`` with what ``write`` puts into the temporary path it is given: afterwards the file is complete, or
    as it was.

    A file that is there keeps its permissions, and a link to it stays. What a killed process left of the same file is
    removed. OSError where it cannot be made, and for a device or a pipe, which it would replace.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is no file", str(path))
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix, suffix = f".{path.name}.pcc-", ".part"
    for name in os.listdir(path.parent):
        if name.startswith(prefix) and name.endswith(suffix):
            with suppress(OSError), (path.parent / name).open("rb") as left:
                fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(left.name)
    temporary = path.parent / f"{prefix}{token_hex(4)}{suffix}"
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        mode = stat.S_IMODE((path if path.is_file() else temporary).stat().st_mode)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        write(temporary)
        temporary.chmod(mode)  # the file may be another by now
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def check_writable(path: Path, what: str) -> None:
    """`PccError` where ``what`` could not be written at ``path`` later: said before the work whose result it is."""
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    if path.is_dir():
        reason = "it is a folder"
    elif not folder.is_dir():
        reason = f"'{folder}' is no folder"
    elif not os.access(folder, os.W_OK | os.X_OK):
        reason = f"nothing may be written into '{folder}'"
    else:
        return
    raise PccError(f"cannot write {what} '{path}': {reason}")


def check_apart(results: Sequence[Path], *read: Path) -> None:
    """`PccError` where a result would be written over a file that is read, or over another result."""
    for place, result in enumerate(results):
        if any(file.is_file() and result.exists() and result.samefile(file) for file in read):
            raise PccError(f"{result} would be written over: choose another place for the result")
        if result.resolve() in [other.resolve() for other in results[:place]]:
            raise PccError(f"{result} would be written twice: choose a place for each result")


def check_own(results: Sequence[Path], is_own: bool, command: str) -> None:
    """`PccError` for a file that a result would be written over, in a folder that is not of an earlier run of
    ``command``."""
    if not is_own and (taken := next((result for result in results if os.path.lexists(result)), None)):
        raise PccError(f"{taken} is in the way, and not of a run of {command}: choose another folder")


def named_files(*texts: str | None) -> list[Path]:
    """The files that words of a command line may mean: ``FILE`` or ``FILE:KEY``; None names none."""
    return [Path(part) for text in texts if text for part in (text, text.rpartition(":")[0]) if part]


@contextmanager
def writing(what: object) -> Generator[None]:
    """`PccError`, "cannot write" and ``what``, for what keeps the block from writing: a path, or more words (``the dump
    'net.txt'``)."""
    try:
        yield
    except OSError as error:
        raise PccError(f"cannot write {what}: {error.strerror or error}") from error


def save_file(path: Path, write: Callable[[Path], object], what: object = None) -> None:
    """What `write_atomically` does, with the errors of `writing`: ``what`` is the path, if None."""
    with writing(path if what is None else what):
        write_atomically(path, write)


def save_text(path: Path, text: str, what: object = None) -> None:
    """A file of text, as `save_file` writes it."""
    save_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), what)
