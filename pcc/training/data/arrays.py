"""Data sets that fit into memory: bytes in, augmented and normalised batches out, a whole batch at a time."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from pcc.errors import PccError
from pcc.training.data.data import Augment, Batch, Data, check_augment


@dataclass(frozen=True)
class Arrays:
    """Images, uint8 (N, C, H, W), and labels, int64 (N), of both halves of a data set."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


class ArrayData(Data):
    """`Arrays` as training data. ``mean`` and ``std`` have one number a channel and belong to pixels scaled to 0..1."""

    def __init__(
        self,
        name: str,
        classes: int,
        arrays: Arrays,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        augment: Augment = "none",
    ) -> None:
        self.name, self.classes = name, classes
        self.augment: Augment = check_augment(name, augment, AUGMENTATIONS)
        _check(name, classes, arrays)
        _, channels, height, width = arrays.train_images.shape
        self.input_shape = channels, height, width
        self.train_size, self.test_size = len(arrays.train_labels), len(arrays.test_labels)
        self._arrays = arrays
        # (pixel / 255 - mean) / std as one multiplication and one addition.
        scale = torch.tensor(std).mul(255).reciprocal()
        self._scale, self._offset = scale.reshape(-1, 1, 1), (-torch.tensor(mean) / torch.tensor(std)).reshape(-1, 1, 1)

    def train_samples(self, indices: Tensor, numbers: Tensor) -> Batch:
        indices, numbers = indices.to(self._scale.device), numbers.to(self._scale.device)
        return self._normalised(
            AUGMENTATIONS[self.augment](self._arrays.train_images[indices], numbers)
        ), self._arrays.train_labels[indices]

    def test_samples(self, indices: Tensor) -> Batch:
        indices = indices.to(self._scale.device)
        return self._normalised(self._arrays.test_images[indices]), self._arrays.test_labels[indices]

    def on(self, device: torch.device) -> Self:
        moved = copy(self)
        moved._arrays = Arrays(**{name: values.to(device) for name, values in vars(self._arrays).items()})
        moved._scale, moved._offset = self._scale.to(device), self._offset.to(device)
        return moved

    def augmented(self, augment: Augment) -> Self:
        changed = copy(self)
        changed.augment = check_augment(self.name, augment, AUGMENTATIONS)
        return changed

    def _normalised(self, images: Tensor) -> Tensor:
        return images.to(torch.float32).mul_(self._scale).add_(self._offset)


def crop_flip(images: Tensor, numbers: Tensor) -> Tensor:
    """Black borders of 4 pixels, a random crop of the old size, and every second image mirrored: He et al. 2016,
    section 4.2."""
    images = _moved(images, 4, numbers)
    return torch.where(numbers[:, 2, None, None, None] < 0.5, images.flip(3), images)


def shift(images: Tensor, numbers: Tensor) -> Tensor:
    """Moved by -2 to 2 pixels both ways; what comes in is black."""
    return _moved(images, 2, numbers)


def _moved(images: Tensor, by: int, numbers: Tensor) -> Tensor:
    """Each image moved by up to ``by`` pixels: (N, C, H, W) to the same."""
    height, width = images.shape[2:]
    # Every window of the padded images as a view, of which one each is copied.
    windows = pad(images, (by,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    down, right = (numbers[:, :2] * (2 * by + 1)).to(torch.int64).unbind(1)
    return windows[torch.arange(len(images), device=images.device), :, down, right]


AUGMENTATIONS: dict[Augment, Callable[[Tensor, Tensor], Tensor]] = {
    "none": lambda images, _: images,
    "crop-flip": crop_flip,
    "shift": shift,
}
"""Pure functions of uint8 images, (N, C, H, W), and of random numbers in [0, 1), (N, 6)."""


def _check(name: str, classes: int, arrays: Arrays) -> None:
    for half, images, labels in (
        ("training", arrays.train_images, arrays.train_labels),
        ("test", arrays.test_images, arrays.test_labels),
    ):
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1:] != arrays.train_images.shape[1:]:
            raise PccError(
                f"{name}: {half} images are {images.dtype} {tuple(images.shape)}, not uint8 (N, C, H, W) of one size"
            )
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1] or not len(labels):
            raise PccError(
                f"{name}: {len(images)} {half} images have {labels.dtype} labels of shape {tuple(labels.shape)}"
            )
        if wrong := ((labels < 0) | (labels >= classes)).nonzero().flatten().tolist():
            raise PccError(
                f"{name}: {half} sample {wrong[0]} has label {labels[wrong[0]]}; with {classes} classes labels are 0 "
                f"to {classes - 1}"
            )
