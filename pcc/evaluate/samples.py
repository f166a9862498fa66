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
from pcc.models.preprocess import PHOTOS, Preprocessing, photos_below

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

    Photos are those of a list (a text file, or the only one in a folder, with a line ``NAME CLASS`` for each, names
    below the file's folder or below the folder of its name); of class folders (``FOLDER/CLASS/*``, also below ``test``
    or ``val``); or all in a folder, without labels. Class folders are numbered by ``class_names`` if all are among
    them, by their own numbers if they are numbers, else in the order of their names. Raises `PccError` for data that
    do not exist, cannot be read, or do not fit ``input_shape``, (C, H, W).
    """
    path = Path(text)
    if path.is_dir() or path.suffix == ".txt":
        photos, labels = _photos(path, class_names)
        return _of_photos(text, photos, labels, _fitting(text, input_shape, preprocessing))
    from pcc.training.data import PACKAGED, open_data

    if text not in PACKAGED and ".py:" not in text:
        raise PccError(
            f"no data '{text}': give {', '.join(PACKAGED)}, FILE.py:loader, a folder of photos or of class folders, or "
            "a list of photos (FILE.txt)"
        )
    return _of_data(text, open_data(text, input_shape=input_shape))


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


def _photos(path: Path, class_names: Sequence[str]) -> tuple[list[Path], np.ndarray | None]:
    """The photos that a path names, and their classes."""
    if not path.is_dir():
        return _listed(path)
    if folder := next((folder for folder in (path / "test", path / "val") if _class_folders(folder)), None):
        path = folder
    if folders := _class_folders(path):
        numbers = _numbered([folder.name for folder in folders], class_names)
        found = [
            (photo, number) for folder, number in zip(folders, numbers, strict=True) for photo in photos_below(folder)
        ]
        return [photo for photo, _ in found], np.array([number for _, number in found])
    lists = sorted(path.glob("*.txt"))
    if len(lists) == 1:
        return _listed(lists[0])
    if photos := photos_below(path):
        return photos, None
    raise PccError(f"{path} holds no photos ({', '.join(PHOTOS)}), class folders or list of photos")


def _class_folders(folder: Path) -> list[Path]:
    """Folders with photos, if those are all that a folder has; a list of photos says more than folders do."""
    if any(folder.glob("*.txt")):
        return []
    return sorted(path for path in folder.glob("*") if path.is_dir() and photos_below(path))


def _numbered(folders: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """The classes of folders, by their names."""
    known = {name: number for number, name in enumerate(class_names)}
    if all(folder in known for folder in folders):
        return [known[folder] for folder in folders]
    if all(folder.isdecimal() for folder in folders):
        return [int(folder) for folder in folders]
    return list(range(len(folders)))


def _listed(path: Path) -> tuple[list[Path], np.ndarray]:
    """The photos of a list, each below the list's folder or below the folder of the list's name."""
    try:
        lines = read_limited(path, "list of photos", MOST_LIST_BYTES).decode().splitlines()
    except UnicodeDecodeError:
        raise PccError(f"{path} is not a list of photos: it is no UTF-8 text") from None
    photos, labels = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise PccError(f"{path}, line {number}: not 'NAME CLASS' with a number for the class: {line.strip()[:60]}")
        places = [folder / found["name"] for folder in (path.parent, path.with_suffix(""))]
        photo = next((place for place in places if place.is_file()), None)
        if photo is None:
            raise PccError(f"{path}, line {number}: there is no photo {places[0]}, and none {places[1]}")
        photos.append(photo)
        labels.append(int(found["number"]))
    if not photos:
        raise PccError(f"{path} lists no photos: a line for each is wanted, 'NAME CLASS'")
    return photos, np.array(labels)
