"""Files of ``torch.save`` and ``torch.jit.save`` as data (`pcc.frontend.pickled`): zip archives, and the chain of
pickles of PyTorch before 1.6."""

import pickle
import struct
import zipfile
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from pcc.errors import PccError
from pcc.frontend.pickled import DTYPES, DataUnpickler, Name
from pcc.frontend.stored import Storage
from pcc.frontend.zipped import check_amount

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The number that older files begin with, as a pickle."""


class Damaged(PccError):
    """A file that begins as one of PyTorch's and does not go on as one."""


@contextmanager
def open_torch_file(path: Path) -> Generator[Any]:
    """What was saved: dicts, lists, texts and numbers as they are, tensors as `Stored`, which can be read inside the
    block, everything else as `Inert`.

    Nothing is imported or run. Raises `Damaged` in one line.
    """
    with ExitStack() as opened:
        with _damage_named():
            if zipfile.is_zipfile(path):
                archive = opened.enter_context(zipfile.ZipFile(path))
                check_amount(archive, path)
                loaded = _read_zip(archive)
            else:
                loaded = _read_legacy(opened.enter_context(path.open("rb")))
        yield loaded


@contextmanager
def _damage_named() -> Generator[None]:
    try:
        yield
    except PccError:
        raise
    except MemoryError:
        raise Damaged("it asks for more memory than there is") from None
    except Exception as error:  # bytes that are damaged on purpose raise anything
        raise Damaged(f"it is not a file that torch.save wrote, or it is damaged ({type(error).__name__})") from error


def _storages(read: Callable[[str], bytearray]) -> tuple[dict[str, Storage], Callable[[tuple[Any, ...]], Storage]]:
    """The storages that a pickle has mentioned, by key, and what gives the one of a persistent id."""
    found: dict[str, Storage] = {}

    def storage(pid: tuple[Any, ...]) -> Storage:
        kind, key = pid[0], str(pid[1])
        if not isinstance(kind, Name):
            raise pickle.UnpicklingError("a storage of no class")
        if pid[4:] not in ((), (None,)):
            raise Damaged("its tensors are views of storages as PyTorch wrote them before 0.4: load and save it again")
        return found.setdefault(key, Storage(DTYPES.get(kind.name, DTYPES["ByteStorage"]), partial(read, key)))

    return found, storage


def _read_zip(archive: zipfile.ZipFile) -> Any:
    names = set(archive.namelist())
    found = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
    if not found:
        raise Damaged("it is a zip archive without data.pkl: not one that torch.save wrote")
    root = min(found, key=len).removesuffix("data.pkl")
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
        raise Damaged("its numbers are big-endian: save it again on another machine")

    def read(key: str) -> bytearray:
        try:
            return bytearray(archive.read(f"{root}data/{key}"))
        except Exception as error:  # as above
            raise Damaged(f"the numbers '{root}data/{key}' are missing or damaged") from error

    with archive.open(f"{root}data.pkl") as file:
        return DataUnpickler(file, _storages(read)[1]).load()  # pyright: ignore[reportArgumentType]  # a binary file in all but name


def _read_legacy(file: BinaryIO) -> Any:
    if DataUnpickler(file).load() != LEGACY_MAGIC:
        raise Damaged("it is a pickle, but not one that torch.save wrote")
    DataUnpickler(file).load()  # version of the format
    DataUnpickler(file).load()  # sizes of C's types
    places: dict[str, tuple[int, int]] = {}
    """Where the numbers of each storage begin, and their bytes."""

    def read(key: str) -> bytearray:
        if key not in places:
            raise Damaged(f"the numbers '{key}' are missing")
        begin, size = places[key]
        size = min(size, file.seek(0, 2) - begin)  # that it is less is found out by the tensor
        file.seek(begin)
        return bytearray(file.read(size))

    storages, storage = _storages(read)
    loaded = DataUnpickler(file, storage).load()
    for key in DataUnpickler(file).load():
        count = struct.unpack("<q", file.read(8))[0]
        if count < 0:
            raise Damaged("a storage has fewer than no numbers")
        places[str(key)] = file.tell(), count * storages[str(key)].dtype.itemsize
        file.seek(places[str(key)][1], 1)
    return loaded
