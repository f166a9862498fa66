"""A person's own data: ``FILE.py:loader`` gives a training and a test set, torch's map-style Datasets of (input,
label)."""

import operator
import random
from collections.abc import Generator, Sized
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from pcc.errors import PccError
from pcc.frontend import run_factory
from pcc.training.data.data import Augment, Batch, Data


class UserData(Data):
    """Datasets as they are: normalisation and augmentation are theirs.

    What the training set draws from torch's, numpy's and Python's generators follows from (seed, epoch) too: they are
    seeded for each sample, and put back after a batch. ``classes`` is an attribute of the training set, a number or a
    list of names; without one every sample is read once, to count. Each sample is checked when it is read: fp32 (C, H,
    W), of one shape, finite, with a label in range.
    """

    def __init__(self, spec: str) -> None:
        self.name = spec
        parts = run_factory(spec, "data", tuple)
        if not isinstance(parts, tuple | list) or len(parts) != 2:
            raise PccError(f"data '{spec}': it gives '{type(parts).__name__}', not a pair of data sets (train, test)")
        self._train, self._test = parts
        self.train_size, self.test_size = self._length("training", self._train), self._length("test", self._test)
        with _generators_put_back():
            first, _ = self._sample("training", self._train, 0)
            self.classes = self._classes()
        if first.dim() != 3:
            raise PccError(
                f"data '{spec}': training sample 0 has shape {tuple(first.shape)}; inputs are (channels, height, width)"
            )
        channels, height, width = first.shape
        self.input_shape = channels, height, width

    def train_samples(self, indices: Tensor, numbers: Tensor) -> Batch:
        # 24 random bits of each of two numbers make a sample's seed.
        seeds = (numbers[:, :2].double() * 2**24).long() @ torch.tensor([2**24, 1])
        with _generators_put_back():
            return self._batch("training", self._train, indices, seeds.tolist())

    def test_samples(self, indices: Tensor) -> Batch:
        return self._batch("test", self._test, indices, None)

    def augmented(self, augment: Augment) -> Self:
        raise PccError(
            f"data '{self.name}': how the samples are augmented is the loader's business; leave 'augment: {augment}' "
            "out"
        )

    def _batch(self, half: str, dataset: Any, indices: Tensor, seeds: list[int] | None) -> Batch:
        inputs, labels = [], []
        for position, index in enumerate(indices.tolist()):
            if seeds is not None:
                _seed(seeds[position])
            x, y = self._checked(half, dataset, index)
            inputs.append(x)
            labels.append(y)
        return torch.stack(inputs), torch.tensor(labels)

    def _checked(self, half: str, dataset: Any, index: int) -> tuple[Tensor, int]:
        x, y = self._sample(half, dataset, index)
        if x.shape != self.input_shape:
            raise PccError(
                f"data '{self.name}': {half} sample {index} has shape {tuple(x.shape)}, training sample 0 "
                f"{self.input_shape}; all need one shape"
            )
        if not x.isfinite().all():
            raise PccError(f"data '{self.name}': {half} sample {index} holds NaN or infinity")
        if not 0 <= y < self.classes:
            raise PccError(
                f"data '{self.name}': {half} sample {index} has label {y}; with {self.classes} classes labels are 0 to "
                f"{self.classes - 1}"
            )
        return x, y

    def _sample(self, half: str, dataset: Any, index: int) -> tuple[Tensor, int]:
        try:
            x, y = dataset[index]
        except Exception as error:
            raise PccError(
                f"data '{self.name}': reading {half} sample {index} failed: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(x, Tensor) or x.dtype != torch.float32:
            kind = str(x.dtype) if isinstance(x, Tensor) else type(x).__name__
            raise PccError(
                f"data '{self.name}': {half} sample {index} is '{kind}'; inputs are normalised torch.float32 tensors"
            )
        try:
            return x, operator.index(y)
        except TypeError:
            raise PccError(
                f"data '{self.name}': {half} sample {index} has label {y!r}; labels are whole numbers"
            ) from None

    def _length(self, half: str, dataset: Any) -> int:
        if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
            raise PccError(
                f"data '{self.name}': the {half} set is '{type(dataset).__name__}', which has no length or cannot be "
                "indexed"
            )
        try:
            length = len(dataset)
        except Exception as error:
            raise PccError(
                f"data '{self.name}': the length of the {half} set: {type(error).__name__}: {error}"
            ) from error
        if not length:
            raise PccError(f"data '{self.name}': the {half} set is empty")
        return length

    def _classes(self) -> int:
        told = getattr(self._train, "classes", None)
        if told is None:
            return 1 + max(self._sample("training", self._train, index)[1] for index in range(self.train_size))
        try:
            return len(told) if isinstance(told, Sized) else operator.index(told)
        except TypeError:
            raise PccError(
                f"data '{self.name}': classes of the training set is {told!r}; give their number or a list of their "
                "names"
            ) from None


@contextmanager
def _generators_put_back() -> Generator[None]:
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def _seed(seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
