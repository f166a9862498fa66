"""Calls of device kernels, before the program gives them buffers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pcc.codegen.opencl.kernel import DeviceKernel
from pcc.codegen.opencl.kernels.weights import PreparedWeight
from pcc.codegen.program import View
from pcc.codegen.range import Range
from pcc.sparsity.fkw import FKW


@dataclass(frozen=True)
class Listed:
    """Which tables of a call `pcc.codegen.opencl.kernels.unlist.UnlistWeight` can make, beside ``weight``."""

    weight: FKW
    places: str
    """The table of where connections read."""
    begins: str
    """The table that has where the connections of filter groups begin, every ``begin_step`` numbers."""
    begin_step: int
    channel_step: int
    """How far the planes of two channels are apart."""


@dataclass(frozen=True)
class DeviceCall:
    """One kernel over a range. Its arguments are tensors in buffers, tables that it alone reads, weights,
    and numbers."""

    kernel: DeviceKernel
    tensors: Mapping[str, View]
    tables: Mapping[str, np.ndarray]
    numbers: Mapping[str, int]
    range: Range
    macs: int = 0
    """Multiply-adds that it does for kept weights."""
    weights: Mapping[str, PreparedWeight] = field(default_factory=dict[str, PreparedWeight])
    """Tables that the device makes of the weights that ship."""
    listed: "Listed | None" = None
    """How the tables of a sparse 1x1 convolution can be made of a processor's lists."""

    def __post_init__(self) -> None:
        said = sorted([*self.tensors, *self.tables, *self.weights, *self.numbers])
        if said != sorted(param.name for param in self.kernel.params):
            raise ValueError(f"{self.kernel.name}: arguments {said} do not fit its parameters")


def places_of(name: str, view: View, *, image: int = 0) -> dict[str, int]:
    """The numbers that tell a kernel where the planes of an image are: ``NAME_offset``, ``NAME_plane``,
    ``NAME_pitch``."""
    offset = view.offset + image * view.strides[0]
    return {f"{name}_offset": offset, f"{name}_plane": view.strides[1], f"{name}_pitch": view.strides[2]}
