"""Photos in folders, one folder a class: ``FOLDER/train/CLASS/*.jpg`` and ``FOLDER/test/CLASS/*.jpg`` (or ``val``, or
``valid``)."""

import math
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import ImageOps
from torch import Tensor

from pcc.errors import PccError
from pcc.models.preprocess import PHOTOS, TEST_FOLDERS, Preprocessing, photos_below
from pcc.training.data.data import Augment, Batch, Data, check_augment

AUGMENTATIONS: tuple[Augment, ...] = ("crop-flip", "none")


class FolderData(Data):
    """Photos that are decoded when a batch needs them, by as many threads as there are processors. Classes are numbered
    by name.

    Training takes a random part of each photo and mirrors every second one; tests take what ``preprocessing`` makes of
    a photo.
    """

    def __init__(self, folder: Path, preprocessing: Preprocessing) -> None:
        self.name, self.preprocessing = str(folder), preprocessing
        self.augment: Augment = "crop-flip"
        train, test = _half(folder, "train"), _half(folder, *TEST_FOLDERS)
        self.class_names = sorted(train)
        self.classes = len(train)
        if unknown := sorted(set(test) - set(train)):
            raise PccError(f"{folder}: the test set has photos of '{unknown[0]}', the training set has none")
        self._train, self._train_labels = self._numbered(train)
        self._test, self._test_labels = self._numbered(test)
        self.train_size, self.test_size = len(self._train), len(self._test)
        _, channels, height, width = preprocessing.shape
        self.input_shape = channels, height, width
        self._threads = ThreadPoolExecutor(os.cpu_count())

    def train_samples(self, indices: Tensor, numbers: Tensor) -> Batch:
        paths = [self._train[index] for index in indices.tolist()]
        if self.augment == "none":
            return _stacked(self._threads.map(self.preprocessing.apply, paths)), self._train_labels[indices]
        return _stacked(self._threads.map(self._random_part, paths, numbers.tolist())), self._train_labels[indices]

    def test_samples(self, indices: Tensor) -> Batch:
        paths = [self._test[index] for index in indices.tolist()]
        return _stacked(self._threads.map(self.preprocessing.apply, paths)), self._test_labels[indices]

    def augmented(self, augment: Augment) -> Self:
        changed = copy(self)
        changed.augment = check_augment(self.name, augment, AUGMENTATIONS)
        return changed

    def _random_part(self, path: Path, numbers: list[float]) -> np.ndarray:
        image = self.preprocessing.upright(path)
        height, width = self.preprocessing.sides
        image = image.resize((width, height), self.preprocessing.resample, box=random_box(*image.size, numbers))
        return self.preprocessing.values(ImageOps.mirror(image) if numbers[4] < 0.5 else image)

    def _numbered(self, half: dict[str, list[Path]]) -> tuple[list[Path], Tensor]:
        labels = [label for label, name in enumerate(self.class_names) for _ in half.get(name, ())]
        return [path for name in self.class_names for path in half.get(name, ())], torch.tensor(labels)


def random_box(width: int, height: int, numbers: list[float]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a part with 8 to 100 % of the area, 3:4 to 4:3 in shape: Szegedy et al., "Going
    deeper with convolutions" (2015).

    ``numbers``, in [0, 1), choose area, shape, left and top. Where the part is wider or higher than the photo it is cut
    to fit; others draw again.
    """
    area = width * height * (0.08 + 0.92 * numbers[0])
    shape = math.exp(math.log(4 / 3) * (2 * numbers[1] - 1))
    wide, high = min(width, math.sqrt(area * shape)), min(height, math.sqrt(area / shape))
    left, top = (width - wide) * numbers[2], (height - high) * numbers[3]
    return left, top, min(width, left + wide), min(height, top + high)


def _half(folder: Path, *names: str) -> dict[str, list[Path]]:
    """The photos of each class, below the first of the folders ``names`` that has class folders."""
    for name in names:
        classes = sorted(path for path in (folder / name).glob("*") if path.is_dir() and not path.name.startswith("."))
        half = {path.name: photos_below(path) for path in classes}
        if empty := [kind for kind, photos in half.items() if not photos]:
            raise PccError(f"{folder / name / empty[0]} holds no photos ({', '.join(PHOTOS)})")
        if half:
            return half
    raise PccError(
        f"{folder} has no {' or '.join(names)} folder with a folder of photos for each class: expected "
        f"{folder / names[0]}/CLASS/*.jpg"
    )


def _stacked(inputs: Iterable[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(list(inputs)))
