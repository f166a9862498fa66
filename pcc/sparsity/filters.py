"""Filter and channel pruning: whole outputs, or whole inputs, of a layer disappear.

A filter is a row of the weight. A channel is an input channel, with what every filter reads from it; of a linear layer,
one input. In a grouped convolution the input channels of each group are its own, so each group drops channels of its
own choice, as many as the others (`pcc.sparsity.slices`).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pcc.sparsity.slices import Slices
from pcc.sparsity.structure import Packed


@dataclass(frozen=True)
class Filter(Slices):
    """One filter in ``rate`` stays. What is left is the weight of a layer with fewer outputs."""

    name: ClassVar[str] = "filter"

    @staticmethod
    def split(weight: np.ndarray, groups: int) -> np.ndarray:
        """(groups, O/groups, I/groups, kh, kw)."""
        return weight.reshape(groups, -1, *weight.shape[1:])

    @staticmethod
    def join(slices: np.ndarray) -> np.ndarray:
        return slices.reshape(-1, *slices.shape[2:])

    @staticmethod
    def unpack(packed: Packed) -> np.ndarray:
        return Filter.restore(packed)


@dataclass(frozen=True)
class Channel(Slices):
    """One input channel in ``rate`` stays. What is left is the weight of a layer with fewer inputs."""

    name: ClassVar[str] = "channel"

    @staticmethod
    def split(weight: np.ndarray, groups: int) -> np.ndarray:
        """(groups, I/groups, O/groups, kh, kw)."""
        return weight.reshape(groups, -1, *weight.shape[1:]).swapaxes(1, 2)

    @staticmethod
    def join(slices: np.ndarray) -> np.ndarray:
        by_filter = slices.swapaxes(1, 2)
        return by_filter.reshape(-1, *by_filter.shape[2:])

    @staticmethod
    def unpack(packed: Packed) -> np.ndarray:
        return Channel.restore(packed)
