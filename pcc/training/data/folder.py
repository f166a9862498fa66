"""Photos in folders, one folder a class: ``FOLDER/train/CLASS/*.jpg`` and ``FOLDER/test/CLASS/*.jpg`` (or ``val``)."""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from pcc.errors import PccError
from pcc.models.preprocess import Preprocessing
from pcc.training.data.data import Augment, Batch, Data, check_augment

PHOTOS = {".jpg", ".jpeg", ".png"}
AUGMENTATIONS: tuple[Augment, ...] = ("crop-flip", "none")


class FolderData(Data):
    """Photos that are decoded when a batch needs them, by as many threads as there are processors. Classes are numbered by name.

    Training takes a random part of a photo and mirrors every second one; tests take what ``preprocessing`` does with a photo.
    """

    def __init__(self, folder: Path, preprocessing: Preprocessing, augment: Augment = "crop-flip") -> None:
        self.name, self.preprocessing, self.augment = str(folder), preprocessing, check_augment(str(folder), augment, AUGMENTATIONS)
        train, test = _halves(folder)
        self.class_names = sorted(train)
        self.classes = len(train)
        if unknown := sorted(set(test) - set(train)):
            raise PccError(f"{folder}: the test set has photos of '{unknown[0]}', of which the training set has none")
        self._train, self._train_labels = _listed(train, self.class_names)
        self._test, self._test_labels = _listed(test, self.class_names)
        self.train_size, self.test_size = len(self._train), len(self._test)
        _, channels, height, width = preprocessing.shape
        self.input_shape = channels, height, width
        self._threads = ThreadPoolExecutor(os.cpu_count())

    def train_samples(self, indices: Tensor, numbers: Tensor) -> Batch:
        if self.augment == "none":
            return self._loaded(self._train, indices, self.preprocessing.apply), self._train_labels[indices]
        drawn = iter(numbers.tolist())
        jobs = [(self._train[index], next(drawn)) for index in indices.tolist()]
        photos = self._threads.map(lambda job: self.preprocessing.values(crop_flip(self.preprocessing, *job)), jobs)
        return _stacked(photos), self._train_labels[indices]

    def test_samples(self, indices: Tensor) -> Batch:
        return self._loaded(self._test, indices, self.preprocessing.apply), self._test_labels[indices]
