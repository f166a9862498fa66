"""200 labelled CIFAR-10 test photos, which come with pcc: to see that a small network still recognises things, without
a download."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from pcc.models.labels import cifar10_labels
from pcc.models.weights import SHIPPED

SHEET = SHIPPED / "cifar10-photos.png"
"""One row of photos for each class, in the order of the labels: the first of each class in the test set."""
SIZE = 32
OF_EACH = 20


@dataclass(frozen=True)
class CifarPhotos:
    """Photos and what they show."""

    images: np.ndarray
    """uint8 (200, 32, 32, 3), RGB."""
    labels: np.ndarray
    """int64 (200,), numbers into `cifar10_labels`."""

    def pictures(self) -> list[Image.Image]:
        """The photos as Pillow has them, for a `Preprocessing`."""
        return [Image.fromarray(image) for image in self.images]


def cifar_photos() -> CifarPhotos:
    """The photos, sorted by class."""
    classes = len(cifar10_labels())
    with Image.open(SHEET) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    images = pixels.reshape(classes, SIZE, OF_EACH, SIZE, 3).swapaxes(1, 2).reshape(-1, SIZE, SIZE, 3)
    return CifarPhotos(images, np.repeat(np.arange(classes), OF_EACH))
