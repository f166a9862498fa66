"""Depthwise convolution that reads its input where it is: 3x3 and 5x5 windows, column strides 1 and 2, any row stride,
dilation and padding.

An item is one output plane, computed by blocks of rows, vector by vector; a row of less than a vector is stored with
the junk behind it, which the next row replaces. A row of the input is loaded once for all output rows of the block that
use it; with column stride 2 its vectors are parted into even and odd columns in registers. Where a vector can touch the
edge of the image, rows outside are moved into it and masked, columns masked by a table.

All rows of a low plane are one block: the code knows where each row is and which rows of the input there are.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.kernel import READ_LEAD, READ_SLACK
from pcc.codegen.kernels.dense_work import epilogue_strides
from pcc.codegen.kernels.depthwise_tile import ConvDepthwiseDirect, Plane, stored_lanes
from pcc.codegen.kernels.epilogue import Epilogue, channel_arrays
from pcc.codegen.kernels.window_columns import PART_BYTES, column_masks
from pcc.codegen.layers import Conv2d, ConvGeometry
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import ProgramBuilder, View
from pcc.dtype import REALS, DType

WINDOWS = ((3, 3), (5, 5))
ROWS = 4
"""Rows of outputs that are computed at once where registers are many."""
WHOLE_ROWS = 56
"""Of the highest planes that are one block."""


@dataclass(frozen=True)
class DirectSchedule:
    """The rows computed at once, whether a row is less than a vector, and whether they are all that a plane has."""

    rows: int
    narrow: bool
    whole: bool

    def __str__(self) -> str:
        return f"{'all ' if self.whole else ''}{self.rows} {'narrow ' if self.narrow else ''}rows at once"

    def variants(self) -> Iterator["DirectSchedule"]:
        """Fewer rows at once, of those that are not all."""
        yield from (replace(self, rows=rows) for rows in range(1, 1 if self.whole else self.rows))


@dataclass(frozen=True)
class DirectFamily:
    """Convolutions whose filters read one channel each, without a copy of the input."""

    name: str = "conv-depthwise-direct"
    layer: type[Conv2d] = Conv2d
    format: WeightFormat = "dense"
    dtypes: tuple[DType, ...] = REALS

    def candidates(self, layer: Conv2d, machine: Machine) -> list[Candidate] | str:
        geometry, weight, lanes = layer.geometry, layer.weight, machine.isa.lanes(layer.x.dtype)
        assert isinstance(weight, np.ndarray)
        if layer.groups == 1 or weight.shape[1] != 1:
            return "a filter reads more than one channel"
        if geometry.window not in WINDOWS or geometry.stride[1] > 2:
            return "its window is not 3x3 or 5x5, or steps over more than every second column"
        height, width = geometry.output_size(*layer.x.shape[2:])
        left, reach = geometry.padding[1], (geometry.window[1] - 1) * geometry.dilation[1]
        beyond = (width - 1) * geometry.stride[1] + reach + 1 - left - layer.x.shape[3]
        size = layer.x.dtype.bytes
        if (left + 1) * size > READ_LEAD or (max(reach, beyond) + 2 * lanes) * size > READ_SLACK:
            return "the window reaches too far outside of the rows"
        narrow = width < lanes
        stored = stored_lanes(layer, lanes)
        if stored is None:
            return "rows are shorter than a vector, and planes have no room for what is stored behind the last"
        around, found = machine.beyond(layer.x, layer.y, layer.residual), []
        blocks = DirectSchedule(min(ROWS if machine.isa.registers >= 32 else 2, height), narrow, whole=False)
        whole = DirectSchedule(height, narrow, whole=True)
        schedules = [blocks] if min(stored) == lanes else []
        if height <= WHOLE_ROWS and (not schedules or _suits_strips(layer, narrow, machine)):
            schedules.append(whole)
        if not schedules:
            return "rows are shorter than a vector, planes have no room behind the last, and are too high for one block"
        for schedule in schedules:
            vectors = -(-height // schedule.rows) * -(-width // lanes) * layer.x.shape[0] * len(weight)
            found.append(Candidate(schedule, _block_work(layer, schedule) * vectors + around))
        return found

    def emit(self, layer: Conv2d, schedule: DirectSchedule, b: ProgramBuilder) -> None:
        """``layer.groups`` is the number of input channels, ``layer.weight`` a dense (O, 1, kh, kw) array."""
        weight, x, geometry = layer.weight, layer.x, layer.geometry
        assert isinstance(weight, np.ndarray)
        filters = weight.shape[0]
        height, width = geometry.output_size(*x.shape[2:])
        lanes, part = b.isa.lanes(x.dtype), PART_BYTES // x.dtype.bytes
        masks = column_masks(geometry, x.shape[3], width, lanes, part)
        below = x.shape[2] + geometry.padding[0] - (height - schedule.rows) * geometry.stride[0]
        kernel = ConvDepthwiseDirect(
            geometry.window,
            geometry.stride,
            geometry.dilation,
            geometry.padding[:2],
            max(0, min(below, _lines(geometry, schedule.rows))),
            schedule.rows,
            schedule.narrow,
            tuple(bool((masks[:, tap] == 0).any()) for tap in range(geometry.window[1])),
            lanes,
            Epilogue(layer.residual is not None, layer.activation),
            part,
            filters // layer.groups,
            Plane.of(layer, lanes) if schedule.whole else None,
        )
        args: dict[str, View | int | float] = {
            "x": x,
            "w": b.constant(f"{layer.name}.weight", weight.reshape(filters, -1)),
            **b.named_constants(layer.name, channel_arrays(layer)),
            "masks": b.constant(f"{layer.name}.masks", masks),
            "filters": filters,
            "x_image": x.strides[0],
            "x_plane": x.strides[1],
            "x_width": x.shape[3],
            "width": width,
            **epilogue_strides(layer.y, layer.residual),
        }
        if kernel.plane is None:
            args |= {"x_height": x.shape[2], "height": height, "pitch": x.strides[2]}
        else:
            args = {name: value for name, value in args.items() if name not in ("y_row", "r_row")}
        b.call(
            kernel, args, work=x.shape[0] * filters, macs=x.shape[0] * weight.size * height * width, arithmetic=x.dtype
        )


FAMILY = DirectFamily()


def _lines(geometry: ConvGeometry, rows: int) -> int:
    """Rows of the padded input from the first to the last that so many rows of outputs use."""
    return (rows - 1) * geometry.stride[0] + (geometry.window[0] - 1) * geometry.dilation[0] + 1


def _suits_strips(layer: Conv2d, narrow: bool, machine: Machine) -> bool:
    """Whether all rows of a plane may be one block: weights, the sums of rows under way and a row's taps stay in
    registers; and where rows are longer than a vector, strips of every second column come from caches in an order that
    processors do not foresee."""
    (kh, kw), by_lane = layer.geometry.window, machine.isa.multiply_add(layer.x.dtype).by_lane
    weights = -(-kh * kw // machine.isa.lanes(layer.x.dtype)) if by_lane else kh * kw
    foreseen = narrow or layer.geometry.stride[1] == 1 or not machine.costs.far
    return weights + kh + kw <= machine.isa.registers and foreseen


def _block_work(layer: Conv2d, schedule: DirectSchedule) -> Work:
    """One vector of each row of a block."""
    geometry, (kh, kw) = layer.geometry, layer.geometry.window
    lines = [
        row * geometry.stride[0] + u * geometry.dilation[0] - geometry.padding[0]
        for row in range(schedule.rows)
        for u in range(kh)
    ]
    if schedule.whole:
        lines = [line for line in lines if 0 <= line < layer.x.shape[2]]
    loads = kw if geometry.stride[1] == 1 else 2 * (kw // 2 + 1)
    return Work(fma=len(lines) * kw, crossing=len(set(lines)) * loads, stores=schedule.rows, scalars=schedule.rows)
