"""Convolutions to measure, each by itself: sizes, random weights pruned as the passes prune them, and the list that
costs are fitted to."""

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from pcc.codegen.family import family_named
from pcc.codegen.layers import Conv2d, ConvGeometry
from pcc.codegen.program import ProgramBuilder
from pcc.ir.activation import Activation
from pcc.sparsity import fkw, joint, pattern
from pcc.sparsity.formats import DENSE


@dataclass(frozen=True)
class Case:
    """A convolution with square windows and planes, padded so that stride 1 keeps the size."""

    inputs: int
    size: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1

    def __str__(self) -> str:
        kind = "depthwise " if self.groups == self.inputs else ""
        return f"{kind}{self.inputs}->{self.outputs} {self.kernel}x{self.kernel}/{self.stride} @{self.size}"

    @property
    def geometry(self) -> ConvGeometry:
        pad = self.kernel // 2
        return ConvGeometry((self.kernel, self.kernel), (self.stride, self.stride), (pad, pad, pad, pad))

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        return self.outputs, self.inputs // self.groups, self.kernel, self.kernel

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the dense layer."""
        return prod(self.weight_shape) * prod(self.geometry.output_size(self.size, self.size))

    def layer(self, b: ProgramBuilder, name: str, weight: np.ndarray | fkw.FKW) -> Conv2d:
        """The layer with an input and an output of its own, biased, with ReLU. Their planes start at cache lines, as
        between the layers of a network."""
        rows, columns = self.geometry.output_size(self.size, self.size)
        x, y = (
            b.planes(f"{name}_x", (1, self.inputs, self.size, self.size)),
            b.planes(f"{name}_y", (1, self.outputs, rows, columns)),
        )
        b.layer = name
        return Conv2d(
            name,
            x,
            y,
            weight,
            np.ones(self.outputs, np.float32),
            self.geometry,
            self.groups,
            activation=Activation("relu"),
        )


def dense_weight(case: Case) -> np.ndarray:
    """fp32 (O, I/groups, k, k), the same at every call."""
    return np.random.default_rng(0).standard_normal(case.weight_shape, np.float32) * 0.05


def sparse_weight(case: Case, patterns: np.ndarray | None, rate: float, share: int) -> fkw.FKW:
    """The dense weight pruned: 3x3 windows to the patterns, connections to one in ``rate``, for groups of ``share``
    filters."""
    patterns = patterns if case.kernel == 3 else None
    cut = joint.project(dense_weight(case), patterns, rate, share=share)
    return fkw.pack(cut.weight, 1, patterns, share, cut.order)


PATTERNS = pattern.mine([np.random.default_rng(2).standard_normal((256, 64, 3, 3), np.float32)], 8)
"""Eight patterns of four taps."""


@dataclass(frozen=True)
class Pruned:
    """A convolution of which one connection in ``rate`` is kept, in 8 patterns where its window is 3x3, shared by
    groups of ``share`` filters; dense where it has groups."""

    case: Case
    rate: float = 3.6
    share: int = 1

    def __str__(self) -> str:
        return f"{self.case}, 1/{self.rate:g}" + (f", share {self.share}" if self.share > 1 else "")

    def has_format(self, format: str) -> bool:
        """Whether `weight` can be had in a format."""
        return format in (DENSE, "fkw") if self.case.groups == 1 else format == DENSE

    def weight(self, format: str) -> np.ndarray | fkw.FKW:
        """The weight in a format; all hold the same numbers."""
        if self.case.groups > 1:
            return dense_weight(self.case)
        packed = _packed(self)
        return fkw.unpack(packed) if format == DENSE else packed

    def emit(self, b: ProgramBuilder, name: str, family: str, schedule: object) -> None:
        """Records the layer with an input and an output of its own."""
        chosen = family_named(family)
        chosen.emit(self.case.layer(b, name, self.weight(chosen.format)), schedule, b)


@lru_cache(maxsize=1)
def _packed(pruned: Pruned) -> fkw.FKW:
    return sparse_weight(pruned.case, PATTERNS, pruned.rate, pruned.share)


_DEPTHWISE = ((32, 112, 1), (144, 56, 1), (144, 56, 2), (384, 14, 1), (960, 7, 1))
_POINTWISE = (
    (64, 56, 256),
    (256, 56, 64),
    (512, 28, 128),
    (128, 28, 512),
    (1024, 14, 256),
    (256, 14, 1024),
    (2048, 7, 512),
    (512, 7, 2048),
)

LAYERS: tuple[Pruned, ...] = (
    *(
        Pruned(Case(c, s, o))
        for c, s, o in ((64, 224, 64), (128, 112, 128), (128, 56, 256), (256, 28, 512), (512, 28, 512), (512, 14, 512))
    ),
    *(Pruned(Case(64 << stage, 56 >> stage, 64 << stage)) for stage in range(4)),
    *(Pruned(Case(64 << stage, 112 >> stage, 64 << stage, stride=2)) for stage in (1, 2, 3)),
    *(Pruned(Case(128, 28, 128), rate) for rate in (1.0, 2.0, 8.0)),
    *(Pruned(Case(128, 28, 128), share=share) for share in (2, 4)),
    *(Pruned(Case(*sizes, 1)) for sizes in _POINTWISE),
    *(
        Pruned(Case(i, s, o, 1), rate)
        for i, s, o in ((144, 56, 24), (192, 28, 32), (384, 14, 96), (960, 7, 160))
        for rate in (2.0, 5.0, 10.0)
    ),
    *(Pruned(Case(i, s, o, 1), 2.0) for i, s, o in ((24, 56, 144), (64, 14, 384), (160, 7, 960))),
    *(Pruned(Case(channels, size, channels, 3, stride, channels), rate=1) for channels, size, stride in _DEPTHWISE),
)
"""Of VGG-16, ResNet-50 and MobileNetV2, at several densities."""
