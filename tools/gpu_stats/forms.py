"""The forms of a 3x3 layer that are compared, as calls of pcc's own kernels on a layer of random weights."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from pcc.codegen.layers import Conv2d, ConvGeometry
from pcc.codegen.opencl.call import DeviceCall
from pcc.codegen.opencl.families.conv_sparse import HIGH_TILES
from pcc.codegen.opencl.families.conv_winograd import Winograd, WinogradSchedule
from pcc.codegen.opencl.families.tiles import converted, group_work
from pcc.codegen.opencl.kernels.conv_direct import ConvDirect, direct_call
from pcc.codegen.opencl.kernels.conv_gather import ConvGather, gather_call
from pcc.codegen.opencl.kernels.tile import Tile
from pcc.codegen.opencl.kernels.winograd import WinogradProduct
from pcc.codegen.opencl.kernels.winograd_calls import winograd_calls
from pcc.codegen.opencl.planes import Planes
from pcc.codegen.opencl.profiles import DeviceWork
from pcc.codegen.program import View, contiguous_strides
from pcc.codegen.range import Range
from pcc.dtype import DType
from pcc.ir.activation import Activation
from pcc.sparsity.fkw import FKW

PATTERNS = np.array(
    [[1, 3, 4, 5], [3, 4, 5, 7], [1, 3, 4, 7], [1, 4, 5, 7], [0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]],
    np.int32,
)
"""Eight patterns of four taps, the centre among them."""

RATE = 3.6
"""Of connections, one in so many is kept (the papers' rate)."""

ALONE = (1, 1, 1)


@dataclass(frozen=True)
class Shape:
    """A 3x3 convolution with padding 1, of one image."""

    channels: int
    filters: int
    size: int
    stride: int = 1

    def layer(self, dtype: DType, weight: np.ndarray) -> Conv2d:
        geometry = ConvGeometry((3, 3), (self.stride, self.stride), (1, 1, 1, 1))
        x = Planes((1, self.channels, self.size, self.size), dtype=dtype).view("x")
        out = geometry.output_size(self.size, self.size)
        y = Planes((1, self.filters, *out), dtype=dtype).view("y")
        return Conv2d("layer", x, y, weight, None, geometry, activation=Activation("relu"))


@cache
def connections(filters: int, channels: int, share: int) -> FKW:
    """An FKW weight with the same number of random connections, and of each pattern, in every filter group."""
    random, groups, kept = np.random.default_rng(0), filters // share, max(1, round(channels / RATE))
    counts = np.diff(np.arange(len(PATTERNS) + 1) * kept // len(PATTERNS))
    drawn = [np.split(random.permutation(channels)[:kept], counts.cumsum()[:-1]) for _ in range(groups)]
    index = np.concatenate([np.sort(part) for parts in drawn for part in parts]).astype(np.int32)
    stride = np.tile(np.concatenate([[0], counts.cumsum()]), (groups, 1)).astype(np.int32)
    return FKW(
        (filters, channels, 3, 3),
        1,
        share,
        PATTERNS,
        np.arange(filters, dtype=np.int32),
        (np.arange(groups + 1) * kept).astype(np.int32),
        index,
        stride,
        np.ones((groups * kept, 4, share), np.float32),
    )


def every_connection(filters: int, channels: int, share: int) -> FKW:
    """A dense weight in the same form: one pattern of all taps."""
    groups = -(-filters // share)
    return FKW(
        (groups * share, channels, 3, 3),
        1,
        share,
        np.arange(9, dtype=np.int32)[None],
        np.minimum(np.arange(groups * share), filters - 1).astype(np.int32),
        (np.arange(groups + 1) * channels).astype(np.int32),
        np.tile(np.arange(channels, dtype=np.int32), groups),
        np.tile(np.array([[0, channels]], np.int32), (groups, 1)),
        np.ones((groups * channels, 9, share), np.float32),
    )


@dataclass
class _Scratch:
    dtype: DType
    count: int = field(default=0)

    def __call__(self, name: str, elements: int) -> View:
        return View(name, (elements,), contiguous_strides((elements,)), dtype=self.dtype)


@dataclass(frozen=True)
class Form:
    """A way to compute a layer; ``calls`` takes (shape, type in memory, type of arithmetic)."""

    name: str
    calls: Callable[[Shape, DType, DType], list[DeviceCall]]
    work: Callable[[Shape, DType, DType], DeviceWork]
    """What costs count of the calls, from the same arguments."""
    strided: bool = True
    """Whether it takes strides."""


def _tiled(tile: Tile, *, sinks_weights: bool, dense: bool = False, gathered: bool = False) -> Form:
    def weight(shape: Shape) -> FKW:
        return (every_connection if dense else connections)(shape.filters, shape.channels, tile.filters)

    def calls(shape: Shape, dtype: DType, arithmetic: DType) -> list[DeviceCall]:
        call = gather_call if gathered else direct_call
        return [call(shape.layer(dtype, _NO_WEIGHT), weight(shape), tile, arithmetic, 0, ALONE, sinks_weights)]

    def work(shape: Shape, dtype: DType, arithmetic: DType) -> DeviceWork:
        fkw = weight(shape)
        groups = fkw.shape[0] // fkw.share
        layer = shape.layer(dtype, _NO_WEIGHT)
        work = group_work(layer, fkw.patterns, len(fkw.index), groups, tile, gathered=gathered)
        return converted(work, dtype, arithmetic)

    kind = "direct " if dense else "gather " if gathered else ""
    return Form(f"{kind}{tile.symbol}", calls, work, strided=tile not in HIGH_TILES.values())


def _winograd(outputs: int, filters: int, vectors: int, tiles: int) -> Form:
    def layer_of(shape: Shape, dtype: DType) -> Conv2d:
        return shape.layer(dtype, np.zeros((shape.filters, shape.channels, 3, 3), np.float32))

    def calls(shape: Shape, dtype: DType, arithmetic: DType) -> list[DeviceCall]:
        product = WinogradProduct(outputs, dtype, arithmetic, filters, vectors)
        layer = layer_of(shape, dtype)
        return winograd_calls(layer, product, _Scratch(dtype), 0, lambda items: Range.covering(items, ALONE), tiles)

    def work(shape: Shape, dtype: DType, arithmetic: DType) -> DeviceWork:
        schedule = WinogradSchedule(filters, vectors, tiles, arithmetic)
        return Winograd(outputs).work(layer_of(shape, dtype), schedule, lambda items: 1.0)

    return Form(f"F({outputs}x{outputs}) {filters}x{vectors}", calls, work, strided=False)


_NO_WEIGHT = np.zeros((0, 0, 3, 3), np.float32)


def _forms(
    dense: list[Tile],
    products: list[tuple[int, int]],
    free: list[Tile],
    shared: list[Tile],
    gathers: list[Tile],
    tiles: int,
    *,
    sinks_weights: bool,
) -> dict[str, list[Form]]:
    return {
        "dense direct": [_tiled(tile, sinks_weights=sinks_weights, dense=True) for tile in dense],
        "F(2x2)": [_winograd(2, f, v, 4) for f, v in products],
        "F(4x4)": [_winograd(4, f, v, tiles) for f, v in products],
        "free": [_tiled(tile, sinks_weights=sinks_weights) for tile in free],
        "shared by 4": [
            *(_tiled(tile, sinks_weights=sinks_weights) for tile in shared),
            *(_tiled(tile, sinks_weights=sinks_weights, gathered=True) for tile in gathers),
        ],
    }


FORMS: dict[str, dict[str, list[Form]]] = {
    "adreno": _forms(
        [Tile(4, 2, 2), Tile(4, 1, 2)],
        [(4, 1), (8, 1), (8, 2), (8, 4)],
        [Tile(1, 4, 4), Tile(1, 2, 8), Tile(1, 2, 4), Tile(1, 2, 2)],
        [Tile(4, 2, 4), Tile(4, 2, 2), Tile(4, 1, 2), Tile(4, 1, 1)],
        [Tile(4, 1, 1), Tile(4, 1, 2)],
        tiles=4,
        sinks_weights=False,
    ),
    "mali": _forms(
        [Tile(4, 2, 1), Tile(4, 1, 2), Tile(4, 1, 1)],
        [(4, 1)],
        [Tile(1, 2, 4), Tile(1, 2, 2)],
        [Tile(4, 2, 1), Tile(4, 1, 2), Tile(4, 1, 1)],
        [Tile(4, 1, 1)],
        tiles=1,
        sinks_weights=True,
    ),
}
"""What is compared on GPUs of a family, each with the schedules of which the one with the fewest slots counts. Mali's
work-items have 64 registers of one number, Adreno's 192."""


def trips(call: DeviceCall) -> list[float]:
    """How often the loops of a work-item run, on average."""
    match call.kernel:
        case ConvDirect(patterns=patterns):
            return call.tables["heads"][:, 1:][:, : len(patterns)].mean(axis=0).tolist()
        case ConvGather():
            return [float(np.diff(call.tables["segments"]).mean())]
        case WinogradProduct() as product:
            return [*divmod(call.numbers["channels"], product.unroll)]
        case _:
            return []


VGG16 = [
    Shape(3, 64, 224),
    Shape(64, 64, 224),
    Shape(64, 128, 112),
    Shape(128, 128, 112),
    Shape(128, 256, 56),
    *[Shape(256, 256, 56)] * 2,
    Shape(256, 512, 28),
    *[Shape(512, 512, 28)] * 2,
    *[Shape(512, 512, 14)] * 3,
]
RESNET50 = [
    *[Shape(64, 64, 56)] * 3,
    Shape(128, 128, 56, 2),
    *[Shape(128, 128, 28)] * 3,
    Shape(256, 256, 28, 2),
    *[Shape(256, 256, 14)] * 5,
    Shape(512, 512, 14, 2),
    *[Shape(512, 512, 7)] * 2,
]
NETWORKS = {"vgg16": VGG16, "resnet50": RESNET50}
"""The 3x3 layers of networks for images of 224 x 224."""
