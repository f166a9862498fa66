"""The zoo: what `pcc compile NAME` knows by name, with shapes, preprocessing, labels and where trained weights come
from."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from torch import nn

from pcc.errors import PccError
from pcc.frontend.checkpoint import load_weights
from pcc.models import weights as sources
from pcc.models.cifar import ResNet20, vgg8, vgg16_cifar
from pcc.models.efficientnet_lite import EfficientNetLite0
from pcc.models.initialise import initialise
from pcc.models.labels import cifar10_labels, digit_labels, imagenet_labels
from pcc.models.lenet import LeNet5
from pcc.models.mobilenet_v2 import MobileNetV2
from pcc.models.preprocess import CIFAR10, EFFICIENTNET_LITE, KERAS_CAFFE, MNIST, TORCHVISION, Preprocessing
from pcc.models.resnet import resnet18, resnet50, resnet50_v1
from pcc.models.vgg import VGG16, VGG16Features
from pcc.models.weights import ShippedWeights, WeightsSource

OWN_WEIGHTS = ("trained", "imagenet")
"""Words for the trained weights that belong to a zoo model; the second for networks of ImageNet only."""


@dataclass(frozen=True)
class ModelEntry:
    """A zoo model and what belongs to it."""

    name: str
    summary: str
    factory: Callable[[], nn.Module]
    preprocessing: Preprocessing
    labels: Callable[[], tuple[str, ...]] | None
    """Gives the class names; None for models that do not classify."""
    weights: WeightsSource | ShippedWeights | None
    """The trained weights that belong to it, or None."""
    no_weights: str = ""
    """Where there are none: why, and what to use."""

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """NCHW, batch 1."""
        return self.preprocessing.shape


_UNAVAILABLE = (
    "no package registry carries them; give --weights FILE (torchvision's checkpoint fits), or compile with random "
    "weights (--weights none)"
)
_TO_TRAIN = (
    "it knows CIFAR-10's classes, and has to be trained first (pcc prune --recipe); give --weights FILE, or compile "
    "with random weights (--weights none)"
)

_ENTRIES = (
    ModelEntry(
        "lenet5",
        "LeNet-5 of the pruning literature, 28x28 grey digits",
        LeNet5,
        MNIST,
        digit_labels,
        None,
        "it reads digits, not photos, and has to be trained first (pcc prune --recipe); give --weights FILE, or "
        "compile with random weights (--weights none)",
    ),
    ModelEntry(
        "vgg16",
        "VGG-16 with its three fully connected layers",
        VGG16,
        TORCHVISION,
        imagenet_labels,
        None,
        _UNAVAILABLE + "; vgg16-features has trained weights for the 13 convolutions",
    ),
    ModelEntry(
        "vgg16_bn",
        "VGG-16 with batch norms",
        partial(VGG16, batch_norm=True),
        TORCHVISION,
        imagenet_labels,
        None,
        _UNAVAILABLE,
    ),
    ModelEntry(
        "vgg16-features",
        "VGG-16's 13 convolutions and 5 poolings, a feature map out",
        VGG16Features,
        TORCHVISION,
        None,
        sources.VGG16_FEATURES,
    ),
    ModelEntry("resnet18", "ResNet-18", resnet18, TORCHVISION, imagenet_labels, None, _UNAVAILABLE),
    ModelEntry(
        "resnet50",
        "ResNet-50 v1 as Keras trained it: stride on the first 1x1, BGR input (for torchvision's checkpoints: "
        "resnet50-v1.5)",
        resnet50_v1,
        KERAS_CAFFE,
        imagenet_labels,
        sources.RESNET50_V1,
    ),
    ModelEntry(
        "resnet50-v1.5",
        "ResNet-50 as torchvision has it: stride on the 3x3",
        resnet50,
        TORCHVISION,
        imagenet_labels,
        None,
        _UNAVAILABLE + "; resnet50 has trained weights",
    ),
    ModelEntry(
        "mobilenet_v2", "MobileNetV2, width 1.0", MobileNetV2, TORCHVISION, imagenet_labels, sources.MOBILENET_V2
    ),
    ModelEntry(
        "efficientnet_lite0",
        "EfficientNet-Lite0",
        EfficientNetLite0,
        EFFICIENTNET_LITE,
        imagenet_labels,
        sources.EFFICIENTNET_LITE0,
    ),
    ModelEntry("resnet20", "ResNet-20 for CIFAR-10, 32x32 photos", ResNet20, CIFAR10, cifar10_labels, None, _TO_TRAIN),
    ModelEntry(
        "vgg8",
        "a small VGG with batch norms for CIFAR-10, 32x32 photos",
        vgg8,
        CIFAR10,
        cifar10_labels,
        None,
        _TO_TRAIN + "; vgg8-pruned has trained weights",
    ),
    ModelEntry(
        "vgg8-pruned",
        "vgg8, trained and pruned: 8 patterns, connectivity, 8 times fewer weights; they come with pcc",
        vgg8,
        CIFAR10,
        cifar10_labels,
        sources.VGG8_CIFAR10,
    ),
    ModelEntry(
        "vgg16_cifar",
        "VGG-16 with batch norms and one linear layer for CIFAR-10, 32x32 photos",
        vgg16_cifar,
        CIFAR10,
        cifar10_labels,
        None,
        _TO_TRAIN,
    ),
)
_BY_NAME = {entry.name: entry for entry in _ENTRIES}


def names() -> tuple[str, ...]:
    """Every zoo name."""
    return tuple(_BY_NAME)


def entry(name: str) -> ModelEntry:
    """The zoo's entry; `PccError` with the nearest names if there is none. Case, ``-`` and ``_`` do not matter."""
    plain = {_plain(known): found for known, found in _BY_NAME.items()}
    if found := plain.get(_plain(name)):
        return found
    near = [plain[key].name for key in get_close_matches(_plain(name), plain, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(_BY_NAME)}"
    raise PccError(
        f"no model '{name}' in the zoo: {hint} (a model of your own is FILE.py:factory, or a file .onnx or .pt2)"
    )


def create(name: str, weights: str | Path | None = "trained") -> nn.Module:
    """A zoo model in eval mode.

    ``weights`` is ``trained`` (those that belong to the model; fetched into the cache once, where they do not come with
    pcc), a checkpoint file, or None: random numbers from a fixed seed. ``imagenet`` is the same as ``trained`` for
    networks of ImageNet.
    """
    model = entry(name)
    source = _own_weights(model, str(weights)) if weights in OWN_WEIGHTS else weights
    module = model.factory().eval()
    if source is None:
        initialise(module, model.input_shape)
    else:
        load_weights(module, source)
    return module


def _own_weights(model: ModelEntry, word: str) -> Path:
    """The file of a model's trained weights."""
    if model.weights is None:
        raise PccError(f"{model.name} has no trained weights: {model.no_weights}")
    if word == "imagenet" and model.weights.trained_on != "ImageNet":
        raise PccError(
            f"{model.name} was trained on {model.weights.trained_on}, not on ImageNet: its weights are 'trained', the "
            "default"
        )
    return model.weights.path()


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(".", "")
