"""What is compared: zoo networks, light ones and single convolutions, dense or pruned in one shot by pcc's own
structures. Weights are random."""

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from pydantic import BaseModel
from torch import nn

from pcc.errors import PccError
from pcc.models import create, entry
from pcc.models.initialise import initialise
from pcc.sparsity.kernels import Kernels
from pcc.sparsity.unstructured import Unstructured
from tools.bench_peers.light import LIGHT

PATTERNS = 8


@dataclass(frozen=True)
class Network:
    """A network and how it is pruned."""

    name: str
    """On the command line, in file names and in tables."""
    base: str
    """A zoo name, one of `LIGHT`, or a convolution: ``conv:IN,OUT,KERNEL,SIZE[,STRIDE]``."""
    summary: str
    rates: Mapping[int, float] = field(default_factory=dict)
    """Of the convolutions with square windows of this size, one connection in ``rate`` is kept; of 3x3 ones 4 taps of
    each by the patterns, too."""
    linear_rates: Sequence[float] = ()
    """Of each linear layer, in order, one weight in so many is kept; none of them is pruned if there are none."""
    weight_dtype: str = "fp32"
    """What pcc stores the weights of linear layers as."""
    share: int = 1
    """Filters that keep the same connections and patterns, in layers whose filters are a multiple."""

    @property
    def pruned(self) -> bool:
        return bool(self.rates or self.linear_rates)

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """NCHW."""
        if layer := _layer(self.base):
            return 1, layer.inputs, layer.size, layer.size
        if self.base in LIGHT:
            return LIGHT[self.base].input_shape
        return entry(self.base).input_shape

    def module(self) -> nn.Module:
        """The network in eval mode, the same on every call."""
        if self.base in LIGHT or _layer(self.base):
            layer = _layer(self.base)
            module = (layer.module() if layer else LIGHT[self.base].factory()).eval()
            initialise(module, self.input_shape)
        else:
            module = create(self.base, weights=None)
        convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
        prune(convolutions[1:] or convolutions, self.rates, self.share)  # a network's first is spared, as in the papers
        if self.linear_rates:
            linear = [part for part in module.modules() if isinstance(part, nn.Linear)]
            for layer, rate in zip(linear, self.linear_rates, strict=True):
                _cut(layer, Unstructured(rate))
        return module


def prune(convolutions: list[nn.Conv2d], rates: Mapping[int, float], share: int = 1) -> None:
    """Cuts weights to the nearest that have the structure, and scales each layer's so that it keeps its norm:
    activations keep their size. ``share`` filters keep the same connections where they divide a layer's.

    Depthwise convolutions are left alone, as the passes leave them.
    """
    for size, rate in rates.items():
        layers = [
            layer for layer in convolutions if layer.kernel_size == (size, size) and layer.groups < layer.in_channels
        ]
        structure = Kernels(PATTERNS if size == 3 else None, rate).settle(
            [layer.weight.detach().numpy() for layer in layers]
        )
        for layer in layers:
            shared = share if len(layer.weight) % share == 0 else 1
            _cut(layer, replace(structure, share=shared), layer.groups)


def _cut(layer: nn.Conv2d | nn.Linear, structure: Kernels | Unstructured, groups: int = 1) -> None:
    weight = layer.weight.detach().numpy()
    cut = structure.project(weight, groups)
    layer.weight.data = torch.from_numpy(cut * np.float32(np.linalg.norm(weight) / np.linalg.norm(cut)))


class LayerMacs(BaseModel):
    """Multiply-accumulates of a convolution or linear layer."""

    kind: str
    """``3x3``, ``1x1``, ``depthwise`` or ``linear``."""
    dense: int
    kept: int
    """Those whose weight is not zero."""


def layer_macs(module: nn.Module, shape: tuple[int, ...]) -> dict[str, LayerMacs]:
    """Of the layers at their modules' paths, in the order of their calls, for an input (N, C, H, W)."""
    found: dict[str, LayerMacs] = {}

    def count(path: str, layer: nn.Module, output: object) -> None:
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        assert isinstance(output, torch.Tensor)
        uses = output.numel() // len(layer.weight)  # of each weight: output positions
        found[path] = LayerMacs(
            kind=_kind(layer), dense=layer.weight.numel() * uses, kept=int(layer.weight.count_nonzero()) * uses
        )

    hooks = [
        part.register_forward_hook(lambda layer, _, output, path=path: count(path, layer, output))
        for path, part in module.named_modules()
        if isinstance(part, nn.Conv2d | nn.Linear)
    ]
    with torch.inference_mode():
        module(torch.zeros(shape))
    for hook in hooks:
        hook.remove()
    return found


def _kind(layer: nn.Conv2d | nn.Linear) -> str:
    if isinstance(layer, nn.Linear):
        return "linear"
    return "depthwise" if layer.groups == layer.in_channels > 1 else "x".join(map(str, layer.kernel_size))


@dataclass(frozen=True)
class _Layer:
    """A convolution with square windows and planes, padded so that stride 1 keeps the size."""

    inputs: int
    outputs: int
    kernel: int
    size: int
    stride: int = 1

    def module(self) -> nn.Module:
        convolution = nn.Conv2d(self.inputs, self.outputs, self.kernel, self.stride, self.kernel // 2)
        return nn.Sequential(OrderedDict(conv=convolution, relu=nn.ReLU()))


def _layer(text: str) -> _Layer | None:
    return _Layer(*map(int, text.removeprefix("conv:").split(","))) if text.startswith("conv:") else None


_HAN = (1 / 0.04, 1 / 0.04, 1 / 0.23)
_SHARED = 4
_HALF: Mapping[str, Mapping[int, float]] = {
    "shuffle-detector": {1: 2.25},
    "face-embedding": {1: 2.16},
    "anti-spoofing": {1: 2.29},
    "landmarks": {1: 2.15},
    "face-detector": {1: 2.67, 3: 1.2, 5: 2.67},
}
"""Rates that leave half of a light network's multiply-accumulates."""
_PATTERNS = f"{PATTERNS} patterns in 3x3, one 3x3 connection in"
_NETWORKS = (
    Network("vgg16-features", "vgg16-features", "VGG-16's 13 convolutions, dense"),
    Network("vgg16-features-7.8x", "vgg16-features", f"VGG-16's 13 convolutions: {_PATTERNS} 3.6", {3: 3.6}),
    Network("vgg16-features-12x", "vgg16-features", f"VGG-16's 13 convolutions: {_PATTERNS} 5.69", {3: 5.69}),
    Network("vgg16-features-19.7x", "vgg16-features", f"VGG-16's 13 convolutions: {_PATTERNS} 9.79", {3: 9.79}),
    Network("vgg16", "vgg16", "VGG-16 with its linear layers, dense"),
    Network(
        "vgg16-7.8x",
        "vgg16",
        f"VGG-16 with its linear layers, which stay dense; convolutions: {_PATTERNS} 3.6",
        {3: 3.6},
    ),
    Network(
        "vgg16-7.8x-fp16",
        "vgg16",
        "the same weights; pcc stores those of the linear layers as fp16",
        {3: 3.6},
        weight_dtype="fp16",
    ),
    Network(
        "vgg16-7.8x-sparse",
        "vgg16",
        f"VGG-16; convolutions: {_PATTERNS} 3.6; linear layers keep 4, 4 and 23 % (Han et al., 2015)",
        {3: 3.6},
        _HAN,
    ),
    Network("resnet50", "resnet50", "ResNet-50, dense"),
    Network("resnet50-4.4x", "resnet50", f"ResNet-50: {_PATTERNS} 3.6, one weight in 3.6 of 1x1", {3: 3.6, 1: 3.6}),
    Network("mobilenet_v2", "mobilenet_v2", "MobileNetV2, dense"),
    Network("mobilenet_v2-80", "mobilenet_v2", "MobileNetV2: 80 % zeros in 1x1", {1: 5.0}),
    Network("mobilenet_v2-90", "mobilenet_v2", "MobileNetV2: 90 % zeros in 1x1", {1: 10.0}),
    *(
        Network(name, name, f"{light.summary}, {light.input_shape[2]}x{light.input_shape[3]}, dense")
        for name, light in LIGHT.items()
    ),
    *(
        Network(
            f"{name}-2x", name, f"{LIGHT[name].summary}: half of the MACs, shared by {_SHARED}", rates, share=_SHARED
        )
        for name, rates in _HALF.items()
    ),
    Network(
        "mobilenet_v2-2x",
        "mobilenet_v2",
        f"MobileNetV2: half of the MACs, shared by {_SHARED}",
        {1: 2.28},
        share=_SHARED,
    ),
)
NETWORKS: Mapping[str, Network] = {network.name: network for network in _NETWORKS}
"""By name, in the order of the table."""


def table_place(network: str) -> tuple[int, str]:
    """What results are sorted by: networks of the table in its order, then others by their names."""
    names = list(NETWORKS)
    return (names.index(network) if network in names else len(names)), network


_VGG16_LAYERS = (
    *((64, 64, 224), (64, 128, 112), (128, 128, 112), (128, 256, 56)),
    *((256, 256, 56),) * 2,
    (256, 512, 28),
    *((512, 512, 28),) * 2,
    *((512, 512, 14),) * 3,
)
_STAGES = tuple((64 << stage, 56 >> stage) for stage in range(4))
_BLOCKS = (3, 4, 6, 3)
"""Of ResNet-50's stages, whose stride is on a 1x1 as in the paper."""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "all": tuple(NETWORKS),
    "light": tuple(LIGHT),
    "vgg16-3x3": tuple(f"conv:{inputs},{outputs},3,{size}@3.6" for inputs, outputs, size in _VGG16_LAYERS),
    "resnet50-3x3": tuple(
        f"conv:{width},{width},3,{size}@3.6"
        for (width, size), blocks in zip(_STAGES, _BLOCKS, strict=True)
        for _ in range(blocks)
    ),
    "resnet50-1x1": tuple(
        f"conv:{a},{b},1,{size}@3.6" for width, size in _STAGES for a, b in ((width, 4 * width), (4 * width, width))
    ),
}
"""Names for several: every network, and the layers of one kind that a pruned network has (VGG-16 without its first),
3x3 ones as often as it has them."""

LAYER = re.compile(r"(conv:\d+,\d+,\d+,\d+(?:,\d+)?)(?:@(\d+(?:\.\d+)?))?")


def network_named(name: str) -> Network:
    """One of `NETWORKS`, or a layer: ``conv:64,64,3,28`` (inputs, outputs, kernel, size, stride), pruned where
    ``@RATE`` follows.

    Raises `PccError` for what is neither.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    match = LAYER.fullmatch(name)
    if not match:
        raise PccError(
            f"no network '{name}': choose of {', '.join((*GROUPS, *NETWORKS))}, or give a layer as "
            "conv:IN,OUT,KERNEL,SIZE[,STRIDE][@RATE]"
        )
    base, rate = match[1], match[2]
    kernel = int(base.split(",")[2])
    return Network(
        name, base, f"{base}, {f'one connection in {rate}' if rate else 'dense'}", {kernel: float(rate)} if rate else {}
    )


def networks_named(names: Iterable[str]) -> list[Network]:
    """Networks, layers and `GROUPS` by their names, each once. Raises `PccError` as `network_named`."""
    return [
        network_named(name) for name in dict.fromkeys(single for name in names for single in GROUPS.get(name, (name,)))
    ]


def dense(network: Network) -> Network:
    """The network that a pruned one was made from."""
    return Network(network.base, network.base, "dense") if _layer(network.base) else NETWORKS[network.base]
