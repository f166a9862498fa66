"""Unlabelled photos that a package carries, and samples that are drawn from them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO

import numpy as np
import torch
from PIL import Image

from pcc.cache import cache_root
from pcc.files import write_atomically
from pcc.models.fetch import RemotePackage, fetch_members
from pcc.models.preprocess import CIFAR10
from pcc.training.data import open_data

SIDE = 256
"""Samples are so large before a network's own preprocessing."""

PACKAGE = RemotePackage(
    "pypi", "mvtb-data", "1.5", "a65d6569289b124b61a5f99e395bf080b035686f637740163b6f9608e7729fd7", "wheel"
)
_PHOTO = (
    r"mvtbdata/images/((58060|building2-3|butterfly|eiffel-1|eiffel-2|flowers\d|greenscreen|image3|lab-scene|monalisa|notre-dame|parks|road|rocks2-l|roof"
    r"|tomato_\d+|walls-l|campus/(holdout/)?P\d+|mosaic/aerialphoto)\.png|(butterfly|church|image3)\.jpg)"
)
"""The colour photos among the package's images; of some there are several views, of which one is taken."""
_HELD_OUT = (
    "butterfly",
    "church",
    "eiffel",
    "flowers2",
    "flowers6",
    "flowers8",
    "greenscreen",
    "lab-scene",
    "monalisa",
    "parks",
    "tomato_54",
    "holdout",
)


@dataclass(frozen=True)
class OtherPhotos:
    """Unlabelled photos, none of them among the twenty labelled ones: to take samples from, and held out."""

    to_fit: list[Image.Image]
    held_out: list[Image.Image]


@cache
def other_photos() -> OtherPhotos:
    """The photos of the package for machine vision; the first call fetches them into the cache."""
    folder = cache_root() / "photos" / f"{PACKAGE.name}-{PACKAGE.version}"
    done = folder / "complete"
    if not done.is_file():
        for name, data in fetch_members(PACKAGE, _PHOTO).items():
            write_atomically(
                folder / name.removeprefix("mvtbdata/images/").replace("/", "-"),
                lambda path, data=data: path.write_bytes(data),
            )
        done.touch()
    found = OtherPhotos([], [])
    for path in sorted(folder.glob("*.*g")):
        half = found.held_out if any(name in path.name for name in _HELD_OUT) else found.to_fit
        half.append(Image.open(BytesIO(path.read_bytes())).convert("RGB"))
    return found


def crops(images: list[Image.Image], count: int, seed: int) -> Iterator[Image.Image]:
    """Squares of half to all of the shorter side, some mirrored, as many from each image."""
    random = np.random.default_rng(seed)
    for number in range(count):
        image = images[number % len(images)]
        side = int(min(image.size) * random.uniform(0.5, 1))
        left, top = (int(random.integers(0, length - side + 1)) for length in image.size)
        crop = image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        yield crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else crop


def small_images(half: str, count: int) -> Iterator[Image.Image]:
    """CIFAR-10's first images of a half, ``train`` or ``test``, enlarged."""
    data, indices = open_data("cifar10").augmented("none"), torch.arange(count)
    images, _ = data.train_samples(indices, torch.zeros(count, 3)) if half == "train" else data.test_samples(indices)
    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (CIFAR10.mean, CIFAR10.std))
    for pixels in ((images * std + mean) * 255).round().byte().permute(0, 2, 3, 1).numpy():
        yield Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
