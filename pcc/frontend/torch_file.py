"""Files of ``torch.save`` and ``torch.jit.save`` as data (`pcc.frontend.pickled`): zip archives, and the chain of pickles of PyTorch before 1.6."""

import pickle
import struct
import zipfile
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch

from pcc.errors import PccError
from pcc.frontend.pickled import DTYPES, DataUnpickler, Name
from pcc.frontend.stored import Storage
from pcc.frontend.zipped import check_amount

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The number that older files begin with, as a pickle."""


class Damaged(PccError):
    """A file that begins as one of PyTorch's and does not go on as one."""


def read_torch_file(path: Path) -> Any:
    """What was saved: dicts, lists, texts and numbers as they are, tensors as `Stored`, everything else as `Inert`.

    Nothing is imported or run, and no tensor is read. Raises `Damaged` in one line.
    """
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        with path.open("rb") as file:
            return _read_legacy(file, path)
    except PccError:
        raise
    except MemoryError:
        raise Damaged("it asks for more memory than there is") from None
    except Exception as error:  # bytes that are damaged on purpose raise anything
        raise Damaged(f"it is not a file that torch.save wrote, or it is damaged ({type(error).__name__})") from error


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        found = [entry for entry in archive.namelist() if entry == "data.pkl" or entry.endswith("/data.pkl")]
        if not found:
            raise Damaged("it is a zip archive without data.pkl: not one that torch.save wrote")
        root = min(found, key=len).removesuffix("data.pkl")
        check_amount(archive, path)
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise Damaged("its numbers are big-endian: save it again on another machine")

        storages: dict[str, Storage] = {}

        def storage(pid: tuple[Any, ...]) -> Storage:
            kind, key = pid[0], str(pid[1])
            return storages.setdefault(key, Storage(key, _dtype(kind), partial(_entry, path, f"{root}data/{key}")))

        with archive.open(f"{root}data.pkl") as file:
            return DataUnpickler(file, storage).load()  # pyright: ignore[reportArgumentType]  # a binary file in all but name


def _entry(path: Path, name: str) -> bytearray:
    try:
        with zipfile.ZipFile(path) as archive:
            return bytearray(archive.read(name))
    except (KeyError, zipfile.BadZipFile, OSError, EOFError) as error:
        raise Damaged(f"the numbers '{name}' are missing or damaged") from error


def _read_legacy(file: BinaryIO, path: Path) -> Any:
    if DataUnpickler(file).load() != LEGACY_MAGIC:
        raise Damaged("it is a pickle, but not one that torch.save wrote")
    DataUnpickler(file).load()  # version of the format
    DataUnpickler(file).load()  # sizes of C's types
    places: dict[str, tuple[int, int]] = {}
    """Where the numbers of each storage begin, and their bytes."""
    storages: dict[str, Storage] = {}

    def storage(pid: tuple[Any, ...]) -> Storage:
        kind, key, _, _, view = pid
        if view is not None:
            raise Damaged("its tensors are views of storages as PyTorch wrote them before 0.4: load and save it again")
        return storages.setdefault(str(key), Storage(str(key), _dtype(kind), partial(_part, path, places, str(key))))

    loaded = DataUnpickler(file, storage).load()
    for key in DataUnpickler(file).load():
        count = struct.unpack("<q", file.read(8))[0]
        size = count * storages[str(key)].dtype.itemsize
        if count < 0:
            raise Damaged("a storage has fewer than no numbers")
        places[str(key)] = file.tell(), size
        file.seek(size, 1)
    return loaded


def _part(path: Path, places: dict[str, tuple[int, int]], key: str) -> bytearray:
    if key not in places:
        raise Damaged(f"the numbers '{key}' are missing")
    begin, size = places[key]
    with path.open("rb") as file:
        size = min(size, path.stat().st_size - begin)  # less is found out by the tensor
        file.seek(begin)
        return bytearray(file.read(size))


def _dtype(kind: Any) -> torch.dtype:
    if not isinstance(kind, Name):
        raise pickle.UnpicklingError("a storage of no class")
    return DTYPES.get(kind.name, torch.uint8)
