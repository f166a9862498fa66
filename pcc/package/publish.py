"""Gives a package its place: the whole of it at once, and nothing of the user's goes.

with new_package(out, package_files(name, targets)) as staging:      # refuses a place that cannot be written, before
any work
    ...compile...
    build_package(spec, staging)
                                       # here the finished folder takes its name

An older package at ``out`` is replaced. Only files that its manifest lists, as pcc wrote them, are removed, and the
manifest. All else in the folder is the user's and stays: it is linked into the new folder (a second name of the same
file, so it is never absent), then the two folders change places in one step. A kill at any moment leaves the old
package or the new one, each with the user's files. Where the file system cannot exchange folders, ``out`` has no folder
for a moment; the next compilation beside it puts the old one back if that moment was the last.
"""

import ctypes
import os
import shutil
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from errno import EDQUOT, EINVAL, ENAMETOOLONG, ENOSPC, ENOSYS, ENOTSUP
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import NoReturn

from pcc.errors import PccError
from pcc.package.files import is_unchanged
from pcc.package.manifest import MANIFEST
from pcc.package.read import open_package
from pcc.scratch import remove_tree, scratch_folder

_OLD = "old"
"""Where in the scratch folder the replaced package goes, under its own name."""


@contextmanager
def new_package(out: Path, files: Sequence[str] = (MANIFEST,)) -> Generator[Path]:
    """A folder to build a package in, beside ``out``; it becomes ``out`` if the block ends well and vanishes if it does
    not.

    ``files`` are the paths that the package will have, with ``*`` and ``[0-9]`` where only their form is known. Raises
    `PccError` at once if ``out`` cannot be written, is something else than a package, or holds a file of the user's
    where the new package needs the place.
    """
    with ExitStack() as stack:
        try:
            out = Path(os.path.abspath(out))
            _refuse_place(out)
            out.parent.mkdir(parents=True, exist_ok=True)
            work = stack.enter_context(scratch_folder(out.parent, "package", _rescue))
            staging = work / "new"
            staging.mkdir()
            _refuse_long_names(staging, files)
            if contents := _survey(out):
                _refuse_conflicts(contents, files)
                _keep(contents, work / "trial")  # what cannot be kept is better known now
                remove_tree(work / "trial")
        except (OSError, ValueError) as error:
            raise _cannot_write(out, error) from None
        try:
            yield staging
            _publish(staging, out, work / _OLD / out.name)
        except OSError as error:
            if error.errno not in (ENOSPC, EDQUOT) and not str(error.filename).startswith((str(work), str(out))):
                raise  # not ours: something that the block reads
            raise _cannot_write(out, error) from error


def check_new_package(out: Path, files: Sequence[str] = (MANIFEST,)) -> None:
    """`PccError` where `new_package` would refuse a place for what lies there: said before the work whose result it
    is. Makes nothing."""
    try:
        out = Path(os.path.abspath(out))
        if contents := _survey(out):
            _refuse_conflicts(contents, files)
    except (OSError, ValueError) as error:
        raise _cannot_write(out, error) from None


@dataclass(frozen=True)
class _Contents:
    """What a folder with a package holds beside the package, as relative paths with forward slashes."""

    folder: Path
    files: Sequence[str]
    """All that is no folder; links are never followed."""
    folders: Sequence[str]
    """Folders that no file of the package lies in."""


def _refuse_place(out: Path) -> None:
    with suppress(FileNotFoundError):
        out.lstat()  # OSError for a path through a file, or too long
    if out.is_symlink():
        raise PccError(f"{out} is a symbolic link to {os.path.realpath(out)}: name that folder itself")
    if Path.cwd().is_relative_to(os.path.realpath(out)):
        raise PccError(f"{out} is the folder you are in, or one above it: choose another output folder")


def _survey(out: Path) -> _Contents | None:
    """What must be kept when ``out`` is replaced; None if nothing is there. `PccError` if it must not be replaced."""
    _refuse_place(out)
    if not os.path.lexists(out):
        return None
    if not out.is_dir() or (any(out.iterdir()) and not os.path.lexists(out / MANIFEST)):
        raise PccError(f"{out} exists and is not a pcc package: choose another output folder")
    try:
        listed = open_package(out).manifest.files if any(out.iterdir()) else {}
    except PccError as error:
        raise PccError(
            f"{out} exists and is not a pcc package that may be replaced ({error}): choose another output folder"
        ) from None
    for name in _found(out):
        if name in listed and not (out / name).is_dir() and not is_unchanged(out / name, listed[name]):
            raise PccError(
                f"{out}: {name} was changed since pcc wrote it, and may be precious: move it away or delete it, or "
                "choose another output folder"
            )
    return _beside_package(out, listed)


def _found(folder: Path) -> Iterator[str]:
    """Everything below a folder, links not followed; OSError if a part cannot be read."""
    for path, folders, names in os.walk(folder, onerror=_raise):
        for name in (*folders, *names):
            yield (Path(path) / name).relative_to(folder).as_posix()


def _raise(error: OSError) -> NoReturn:
    raise error


def _beside_package(folder: Path, listed: Collection[str]) -> _Contents:
    package = {MANIFEST, *listed}
    holding = {parent.as_posix() for name in package for parent in PurePosixPath(name).parents}
    files, folders = [], []
    for name in _found(folder):
        path = folder / name
        if path.is_symlink() or not path.is_dir():
            files += [name] if name not in package else []
        elif name not in holding:
            folders.append(name)
    return _Contents(folder, files, folders)


def _refuse_conflicts(contents: _Contents, files: Sequence[str]) -> None:
    """`PccError` for a user's file where a file or a folder of the new package goes, or a user's folder where a file
    goes."""
    holding = {parent.as_posix() for file in files for parent in PurePosixPath(file).parents}
    for name in (*contents.files, *contents.folders):
        if any(fnmatchcase(name, file) for file in files) or (name in holding and name in contents.files):
            raise PccError(
                f"{contents.folder / name} is not of the package there, and the new package needs its place: move it "
                "away"
            )


def _refuse_long_names(staging: Path, files: Sequence[str]) -> None:
    """`PccError` for a path that this file system does not take."""
    for file in files:
        for part in (file, *PurePosixPath(file).parts):
            try:
                (staging / part).lstat()
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno != ENAMETOOLONG:
                    raise
                raise PccError(
                    f"'{PurePosixPath(part).name}' is too long a name for this file system: choose a shorter name for "
                    "the model"
                ) from None


def _keep(contents: _Contents, new: Path) -> None:
    """Puts what is the user's into ``new``, too: folders like theirs, and second names of the same files."""
    for name in (*contents.folders, *contents.files):
        try:
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            if name in contents.folders:
                (new / name).mkdir(exist_ok=True)
            else:
                os.link(contents.folder / name, new / name, follow_symlinks=False)
        except OSError as error:
            reason = error.strerror or error
            raise PccError(
                f"cannot keep {contents.folder / name} beside the new package ({reason}): move it away, or choose "
                "another output folder"
            ) from None
    for name in sorted(contents.folders, reverse=True):  # what lies in a folder first: it may become read-only
        shutil.copystat(contents.folder / name, new / name)
        _share_owner(contents.folder / name, new / name)


def _share_owner(old: Path, new: Path) -> None:
    status = old.lstat()
    with suppress(PermissionError):
        os.chown(new, status.st_uid, status.st_gid)


def _publish(staging: Path, out: Path, old: Path) -> None:
    """Gives the finished folder its name; the folder that had it becomes ``old``."""
    contents = _survey(out)
    if contents is None:
        staging.rename(out)
        return
    _keep(contents, staging)
    shutil.copymode(out, staging)
    _share_owner(out, staging)
    old.parent.mkdir()
    if _exchange(staging, out):
        staging.rename(old)
        return
    try:
        out.rename(old)
        staging.rename(out)
    except BaseException:
        if old.exists() and not os.path.lexists(out):
            old.rename(out)
        raise


def _exchange(first: Path, second: Path) -> bool:
    """Two folders change places in one step (Linux's renameat2 with RENAME_EXCHANGE); False where there is no such
    step."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    working_folder, exchange = -100, 2
    if renameat2(working_folder, os.fsencode(first), working_folder, os.fsencode(second), exchange) == 0:
        return True
    number = ctypes.get_errno()
    if number in (EINVAL, ENOSYS, ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(second))


def _rescue(work: Path) -> None:
    """Before a scratch folder goes: a package whose place is empty goes back, and what a user put into a replaced one
    meanwhile goes to the new one."""
    for old in list((work / _OLD).glob("*")):
        out = work.parents[1] / old.name
        if not os.path.lexists(out):
            old.rename(out)
        else:
            _carry(old, out)
            old.rename(work / "carried")


def _carry(old: Path, out: Path) -> None:
    """Moves what is the user's in a replaced package to the new one, where it is not there already; of two versions the
    later stays."""
    try:
        listed = open_package(old).manifest.files if any(old.iterdir()) else {}
    except PccError as error:
        raise OSError(str(error)) from error  # nothing is known about it: it stays where it is
    contents = _beside_package(old, listed)
    for name in contents.folders:
        (out / name).mkdir(parents=True, exist_ok=True)
    for name in contents.files:
        if not os.path.lexists(out / name) or (old / name).lstat().st_mtime_ns > (out / name).lstat().st_mtime_ns:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (old / name).replace(out / name)


def _cannot_write(out: Path, error: OSError | ValueError) -> PccError:
    return PccError(f"cannot write {out}: {getattr(error, 'strerror', None) or error}")
