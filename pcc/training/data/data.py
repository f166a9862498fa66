"""What a training loop sees of a data set: batches that follow from (seed, epoch) alone.

A run that was interrupted and a run on more processes see the samples of the uninterrupted single process, augmented
alike: the order of an epoch and the random numbers of every augmentation are drawn for the whole global batch, from
(seed, epoch), and a process takes its share.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from copy import copy
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from pcc.errors import PccError

NUMBERS = 6
"""Random numbers that one sample's augmentation may use."""

Augment = Literal["none", "crop-flip", "shift"]
"""``crop-flip``: a random part of the image, every second one mirrored; ``shift``: moved by up to 2 pixels."""

Batch = tuple[Tensor, Tensor]
"""Inputs, fp32 (N, C, H, W), normalised; labels, int64 (N)."""


class Data(ABC):
    """A labelled training set and test set of one input shape."""

    name: str
    classes: int
    """Labels are 0 to ``classes`` - 1."""
    input_shape: tuple[int, int, int]
    """C, H, W."""
    train_size: int
    test_size: int

    @abstractmethod
    def train_samples(self, indices: Tensor, numbers: Tensor) -> Batch:
        """The training samples ``indices``, int64 (N), augmented as ``numbers``, fp32 (N, `NUMBERS`) in [0, 1), say: a
        pure function of both."""

    @abstractmethod
    def test_samples(self, indices: Tensor) -> Batch:
        """The test samples ``indices``, int64 (N), as they are."""

    def steps(self, batch: int) -> int:
        """Training batches of an epoch. `PccError` if the training set does not fill one."""
        if not 1 <= batch <= self.train_size:
            raise PccError(
                f"{self.name}: a batch of {batch} cannot be made of {self.train_size} training samples; choose a batch "
                f"size of 1 to {self.train_size}"
            )
        return self.train_size // batch

    def batches(self, epoch: int, batch: int, *, seed: int, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        """One epoch's training batches, shuffled and augmented by ``seed`` and ``epoch`` only.

        ``batch`` counts the samples of a step over all ``ranks`` processes; process ``rank`` gets its ``batch / ranks``
        of each. Samples that do not fill a last batch are left out: another epoch's order has them.
        """
        if ranks < 1 or not 0 <= rank < ranks or batch % ranks:
            raise PccError(
                f"{self.name}: a batch of {batch} cannot be shared by {ranks} processes; choose a multiple of {ranks}"
            )
        return self._batches(
            self.steps(batch), epoch, batch, seed, slice(rank * batch // ranks, (rank + 1) * batch // ranks)
        )

    def _batches(self, steps: int, epoch: int, batch: int, seed: int, share: slice) -> Iterator[Batch]:
        random = np.random.default_rng([seed, epoch])
        order = torch.from_numpy(random.permutation(self.train_size))
        for step in range(steps):
            numbers = torch.from_numpy(random.random((batch, NUMBERS), np.float32))
            yield self.train_samples(order[step * batch : (step + 1) * batch][share], numbers[share])

    def test_batches(self, batch: int, *, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        """The test set in order, ``batch`` samples at a time, the last batch smaller; of ``ranks`` processes each gets
        every ``ranks``-th batch."""
        for start in range(rank * batch, self.test_size, ranks * batch):
            yield self.test_samples(torch.arange(start, min(start + batch, self.test_size)))

    def on(self, device: torch.device) -> Self:
        """The same data for training on ``device``: those that fit into memory are copied there and batched there,
        others come from the processor."""
        return self

    @abstractmethod
    def augmented(self, augment: Augment) -> Self:
        """The same data, its training samples augmented in another way. `PccError` if these data have no such way."""

    def check_labels(self, classes: int) -> None:
        """`PccError` if a network that tells ``classes`` classes apart cannot learn these labels."""
        if self.classes > classes:
            raise PccError(
                f"{self.name} has labels 0 to {self.classes - 1}, but the network tells {classes} classes apart; give "
                f"it {self.classes} outputs"
            )

    def subset(self, train: int | None = None, test: int | None = None) -> "Data":
        """The same data with ``train`` training and ``test`` test samples, always the same ones; None keeps all."""
        return Subset(self, _some(self.train_size, train, self.name), _some(self.test_size, test, self.name))


class Subset(Data):
    """Some of another data set's samples."""

    def __init__(self, whole: Data, train: Tensor, test: Tensor) -> None:
        self.name, self.classes, self.input_shape = whole.name, whole.classes, whole.input_shape
        self.train_size, self.test_size = len(train), len(test)
        self._whole, self._train, self._test = whole, train, test

    def train_samples(self, indices: Tensor, numbers: Tensor) -> Batch:
        return self._whole.train_samples(self._train[indices], numbers)

    def test_samples(self, indices: Tensor) -> Batch:
        return self._whole.test_samples(self._test[indices])

    def on(self, device: torch.device) -> Self:
        changed = copy(self)
        changed._whole = self._whole.on(device)
        return changed

    def augmented(self, augment: Augment) -> Self:
        changed = copy(self)
        changed._whole = self._whole.augmented(augment)
        return changed


def _some(size: int, count: int | None, name: str) -> Tensor:
    if count is None:
        return torch.arange(size)
    if not 1 <= count <= size:
        raise PccError(f"{name}: a subset of {count} cannot be made of {size} samples")
    # Drawn, not the first ones: a data set may be sorted by class.
    return torch.from_numpy(np.sort(np.random.default_rng(0).permutation(size)[:count]))


def check_augment(name: str, augment: Augment, known: Collection[Augment]) -> Augment:
    """``augment``; `PccError` if the data set called ``name`` knows others only."""
    if augment not in known:
        raise PccError(f"{name}: there is no augmentation '{augment}' for it; choose {' or '.join(known)}")
    return augment
