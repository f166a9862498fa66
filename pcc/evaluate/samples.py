"""The samples that networks are evaluated on: test sets as ``pcc prune`` takes them, and folders of photos, labelled or
not."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pcc.errors import PccError
from pcc.files import read_limited
from pcc.models.preprocess import PHOTOS, TEST_FOLDERS, Preprocessing, photos_below

if TYPE_CHECKING:
    from pcc.training.data import Data

MOST_LIST_BYTES = 2**28
"""Of a file that lists photos and their classes."""
_LINE = re.compile(r"(?P<name>\S.*?)[\s,;]+(?P<number>\d{1,9})")


Batch = tuple[np.ndarray, np.ndarray | None]
"""Inputs, fp32 (N, C, H, W), and their classes, int64 (N), where they are known."""


@dataclass(frozen=True)
class Samples:
    """Inputs of a network, in order, and their classes where they are known."""

    name: str
    count: int
    read: Callable[[int, int], Batch]
    """The samples [begin, end)."""

    def batches(self, size: int) -> Iterator[Batch]:
        """All of them, ``size`` at a time, the last batch smaller."""
        for begin in range(0, self.count, size):
            yield self.read(begin, min(begin + size, self.count))


def open_samples(
    text: str, input_shape: tuple[int, int, int], preprocessing: Preprocessing | None, class_names: Sequence[str] = ()
) -> Samples:
    """The test set of ``mnist``, ``cifar10`` or ``FILE.py:loader``; or photos, as a network with ``preprocessing`` sees
    them (as ImageNet's usual one for networks without).

    Photos are those of a list (a text file, or the only one in a folder, with a line ``NAME CLASS`` or ``NAME`` for
    each, names below the file's folder or below the folder of its name); of class folders (``FOLDER/CLASS/*`` with no
    photo beside them, or those below ``test``, ``val`` or ``valid``); or all in a folder, without labels. Beside
    ``train`` class folders have the numbers that they have in training, in the order of the names in ``train``; else
    they are numbered by ``class_names`` if all are among them, by their own numbers if they are numbers, or in the
    order of their names. Raises `PccError` for data that do not exist, cannot be read, or do not fit ``input_shape``,
    (C, H, W).
    """
    path = Path(text)
    if path.is_dir() or path.suffix == ".txt":
        photos, labels = _labelled(path, class_names)
        return _of_photos(text, photos, labels, _fitting(text, input_shape, preprocessing))
    from pcc.training.data import PACKAGED, open_data

    if text not in PACKAGED and ".py:" not in text:
        raise PccError(
            f"no data '{text}': give {', '.join(PACKAGED)}, FILE.py:loader, a folder of photos or of class folders, or "
            "a list of photos (FILE.txt)"
        )
    return _of_data(text, open_data(text, input_shape=input_shape))


def open_photos(text: str, input_shape: tuple[int, int, int], preprocessing: Preprocessing | None) -> Samples:
    """The photos of a list, or of a folder and its folders (of its ``train``, where it has class folders there), as a
    network with ``preprocessing`` sees them; nobody looks at classes. Raises `PccError` as `open_samples` does."""
    path = Path(text)
    listed = _list_in(path)
    photos = (
        [photo for photo, _ in _entries(listed)]
        if listed
        else photos_below(path / "train" if _class_folders(path / "train") else path)
    )
    if not photos:
        raise _no_photos(path)
    return _of_photos(text, photos, None, _fitting(text, input_shape, preprocessing))


def _of_data(text: str, data: "Data") -> Samples:
    import torch

    def read(begin: int, end: int) -> Batch:
        x, y = data.test_samples(torch.arange(begin, end))
        return x.float().numpy(), y.numpy()

    return Samples(text, data.test_size, read)


def _of_photos(text: str, photos: Sequence[Path], labels: np.ndarray | None, preprocessing: Preprocessing) -> Samples:
    threads = ThreadPoolExecutor(os.cpu_count())

    def read(begin: int, end: int) -> Batch:
        inputs = np.concatenate(list(threads.map(preprocessing.apply, photos[begin:end])))
        return inputs, None if labels is None else labels[begin:end]

    return Samples(text, len(photos), read)


def _fitting(text: str, shape: tuple[int, int, int], preprocessing: Preprocessing | None) -> Preprocessing:
    from pcc.training.data import like_imagenet

    if preprocessing is None:
        return like_imagenet(text, shape)
    if preprocessing.shape[1:] != shape:
        raise PccError(f"{text}: a photo becomes {preprocessing.shape[1:]}, the network takes {shape}")
    return preprocessing


def _labelled(path: Path, class_names: Sequence[str]) -> tuple[list[Path], np.ndarray | None]:
    """The photos that a path names, and their classes where they have some."""
    if listed := _list_in(path):
        return _listed(listed)
    halves = [path / name for name in TEST_FOLDERS]
    half = next((half for find in (_class_folders, photos_below) for half in halves if find(half)), None)
    if folders := _class_folders(half or path):
        trained = [folder.name for folder in _class_folders(path / "train")] if half else []
        numbers = _numbered(path, [folder.name for folder in folders], trained, class_names)
        found = [
            (photo, number) for folder, number in zip(folders, numbers, strict=True) for photo in photos_below(folder)
        ]
        return [photo for photo, _ in found], np.array([number for _, number in found])
    if photos := photos_below(half or path):
        return photos, None
    raise _no_photos(path)


def _no_photos(path: Path) -> PccError:
    return PccError(f"{path} holds no photos ({', '.join(PHOTOS)}), class folders or list of photos")


def _list_in(path: Path) -> Path | None:
    """The list that a path is, or has; None for a folder without any."""
    if not path.is_dir():
        return path
    lists = [file for file in sorted(path.glob("*.txt")) if not file.name.startswith(".") and _is_list(file)]
    if len(lists) > 1:
        raise PccError(f"{path} has more than one list of photos: give {', or '.join(map(str, lists))}")
    return lists[0] if lists else None


def _class_folders(folder: Path) -> list[Path]:
    """Folders of photos; none where photos lie beside them, which are of no class."""
    shown = [path for path in folder.glob("*") if not path.name.startswith(".")]
    if any(path.suffix.lower() in PHOTOS for path in shown):
        return []
    return sorted(path for path in shown if path.is_dir() and photos_below(path))


def _numbered(path: Path, folders: Sequence[str], trained: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """The classes of folders, by their names."""
    if trained and (unknown := sorted(set(folders) - set(trained))):
        raise PccError(f"{path}: the test set has photos of '{unknown[0]}', the training set has none")
    known = {name: number for number, name in enumerate(trained or class_names)}
    if all(folder in known for folder in folders):
        return [known[folder] for folder in folders]
    if all(folder.isdecimal() for folder in folders):
        return [int(folder) for folder in folders]
    if known and len(folders) != len(known):
        other = next(folder for folder in folders if folder not in known)
        raise PccError(
            f"{path}: '{other}' is none of the network's {len(known)} classes, and {len(folders)} class folders cannot "
            "be all of them: call the folders as the classes are called, or by their numbers"
        )
    return list(range(len(folders)))


def _is_list(path: Path) -> bool:
    """Whether a text file is a list of photos: its first line begins with the name of one."""
    with path.open(encoding="utf-8", errors="replace") as file:
        first = next((line for line in map(str.strip, file) if line), "")
    named = _LINE.fullmatch(first)
    return Path(named["name"] if named else first).suffix.lower() in PHOTOS


def _listed(path: Path) -> tuple[list[Path], np.ndarray | None]:
    """The photos of a list, and their classes if it has them."""
    entries = _entries(path)
    photos, labels = [photo for photo, _ in entries], [label for _, label in entries if label is not None]
    if len(labels) not in (0, len(photos)):
        raise PccError(f"{path}: {len(labels)} of {len(photos)} lines have a class: give all of them one, or none")
    return photos, np.array(labels) if labels else None


def _entries(path: Path) -> list[tuple[Path, int | None]]:
    """The lines of a list: a photo, below the list's folder or below the folder of the list's name, and its class."""
    try:
        lines = read_limited(path, "list of photos", MOST_LIST_BYTES).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise PccError(f"{path} is not a list of photos: it is no UTF-8 text") from None
    entries = [_entry(path, number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not entries:
        raise PccError(f"{path} lists no photos: a line for each is wanted, 'NAME CLASS'")
    return entries


def _entry(path: Path, number: int, line: str) -> tuple[Path, int | None]:
    """The photo of a line, and its class if it has one."""
    folders = path.parent, path.with_suffix("")
    named = _LINE.fullmatch(line)
    for name, label in ((line, None), *([(named["name"], int(named["number"]))] if named else [])):
        if photo := next((folder / name for folder in folders if (folder / name).is_file()), None):
            return photo, label
    if named is None and Path(line).suffix.lower() not in PHOTOS:
        raise PccError(f"{path}, line {number}: not 'NAME CLASS' with a number for the class: {line[:60]}")
    places = [str(folder / (named["name"] if named else line)) for folder in folders]
    raise PccError(f"{path}, line {number}: there is no photo {', and none '.join(places)}")
