"""Staging: a padded, phase-split copy of a convolution's input, in which every tap is a constant offset.

Flat positions: with row pitch P, output (oy, ox) is position ``p = oy * P + ox``, and a stride-1 tap at row ``u`` and
column ``v`` of the window reads input element ``p + u * P + v``; a plane is one long vector loop whose columns ``ox >=
OW`` are junk. Padding makes rows longer, and strides are taken out by splitting the padded plane into phases (space to
depth): phase (u mod sh, v mod sw) holds every sh-th row and sw-th column, and the tap reads it at ``p + (u div sh) * P
+ v div sw``. Phases that no tap looks at are not stored. The padding to the right of a row is also the padding to the
left of the next, so a 3x3 window over 7 columns needs a pitch of 8, not 9.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels.runs import exact_run, run_branches, run_pieces
from pcc.codegen.layers import ConvGeometry
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import ProgramBuilder, View, contiguous_strides, line_elements, whole_lines
from pcc.dtype import FLOAT32

if TYPE_CHECKING:
    from pcc.codegen.builder import Buffer, Expr, KernelBuilder


@dataclass(frozen=True)
class Staged:
    """An input on which tap ``t`` of output position ``p`` of channel ``c`` of image ``n`` lies at ``n*image + c*plane
    + taps[t] + p``."""

    view: View
    """Pointer to position 0 of channel 0 of image 0 (its shape means nothing)."""
    pitch: int
    """Positions between output rows."""
    plane: int
    """Elements between channels."""
    image: int
    """Elements between images."""
    taps: np.ndarray
    """int32 (kh*kw,): offset of every tap, row-major."""
    height: int
    """Output rows."""
    width: int
    """Output columns; the columns from here to the pitch are junk."""

    @property
    def positions(self) -> int:
        """Positions to compute: up to the last output, without the junk after it."""
        return (self.height - 1) * self.pitch + self.width


@dataclass(frozen=True)
class _Phase:
    """One phase of a staged plane: ``lead`` fill, then ``rows`` times (``columns`` copied, ``pitch - columns`` fill),
    then fill up to ``end``."""

    start: int
    end: int
    lead: int
    rows: int
    columns: int
    source_row: int
    source_column: int


@dataclass(frozen=True)
class _Axis:
    """One axis of one phase: of ``length`` padded elements ``count`` exist, from the ``lead``-th on; the first of them
    is input element ``source``."""

    length: int
    lead: int
    count: int
    source: int


@dataclass(frozen=True)
class Layout:
    """Where everything lies in a staged plane of an input of (height, width)."""

    geometry: ConvGeometry
    height: int
    width: int

    def _axis(self, axis: int, phase: int) -> _Axis:
        size = (self.height, self.width)[axis]
        stride, before = self.geometry.stride[axis], self.geometry.padding[axis]
        offsets = [tap * self.geometry.dilation[axis] for tap in range(self.geometry.window[axis])]
        reach = max(offset // stride for offset in offsets if offset % stride == phase)
        length = self.geometry.output_size(self.height, self.width)[axis] + reach
        lead = min(length, max(0, -(-(before - phase) // stride)))
        source = lead * stride + phase - before
        count = min(length - lead, max(0, -(-(size - source) // stride)))
        return _Axis(length, lead, count, source)

    def _phases_used(self, axis: int) -> list[int]:
        stride, dilation = self.geometry.stride[axis], self.geometry.dilation[axis]
        return sorted({tap * dilation % stride for tap in range(self.geometry.window[axis])})

    @cached_property
    def pitch(self) -> int:
        """The shortest row in which neighbouring rows share only padding."""
        columns = [self._axis(1, phase) for phase in self._phases_used(1)]
        shared = max(axis.count + max(axis.lead, axis.length - axis.lead - axis.count) for axis in columns)
        return max(shared, self.geometry.output_size(self.height, self.width)[1])

    @cached_property
    def phases(self) -> dict[tuple[int, int], _Phase]:
        """Every phase that a tap uses, in the order they are stored; the last is filled up to the end of a cache
        line."""
        phases: dict[tuple[int, int], _Phase] = {}
        start = 0
        used = list(product(self._phases_used(0), self._phases_used(1)))
        for row_phase, column_phase in used:
            rows, columns = self._axis(0, row_phase), self._axis(1, column_phase)
            end = start + (rows.length - 1) * self.pitch + max(columns.length, self.pitch)
            if (row_phase, column_phase) == used[-1]:
                end = whole_lines(end, FLOAT32)
            exists = rows.count > 0 and columns.count > 0
            lead = rows.lead * self.pitch + columns.lead if exists else end - start
            phases[row_phase, column_phase] = _Phase(
                start,
                end,
                lead,
                rows.count if exists else 0,
                columns.count if exists else 0,
                rows.source,
                columns.source,
            )
            start = end
        return phases

    @property
    def plane(self) -> int:
        return max(phase.end for phase in self.phases.values())

    @property
    def taps(self) -> np.ndarray:
        """int32 (kh*kw,): the offset of every tap."""
        (kh, kw), (sh, sw), (dh, dw) = self.geometry.window, self.geometry.stride, self.geometry.dilation
        offsets = [
            self.phases[u % sh, v % sw].start + u // sh * self.pitch + v // sw
            for u in range(0, kh * dh, dh)
            for v in range(0, kw * dw, dw)
        ]
        return np.array(offsets, np.int32)

    @property
    def table(self) -> np.ndarray:
        """int32 (phases, 7): the fields of each phase, for the kernel."""
        rows = [
            (p.start, p.end, p.lead, p.rows, p.columns, p.source_row, p.source_column) for p in self.phases.values()
        ]
        return np.array(rows, np.int32)


def is_staged(geometry: ConvGeometry) -> bool:
    """Whether an input must be copied to be read flat: it is padded, or the window skips positions."""
    return geometry.stride != (1, 1) or any(geometry.padding)


def staged_pitch(x: View, geometry: ConvGeometry) -> int:
    """The pitch that `stage` gives."""
    return Layout(geometry, *x.shape[2:]).pitch if is_staged(geometry) else x.strides[2]


def staging_work(x: View, geometry: ConvGeometry, machine: Machine, *, spills: bool = False) -> Work:
    """What bringing the input to the kernel executes: the copy, if there is one; ``spills`` as in `copy_plane`."""
    if not is_staged(geometry):
        return machine.beyond(x)
    batch, channels, height, width = x.shape
    layout, lanes = Layout(geometry, height, width), machine.isa.lanes(x.dtype)
    copied = View(
        x.buffer, (batch, channels, layout.plane), contiguous_strides((batch, channels, layout.plane)), dtype=x.dtype
    )
    plane = Work()
    for phase in layout.phases.values():
        runs = phase.columns, layout.pitch - phase.columns
        copies, fills = (-(-run // lanes) if spills else run_pieces(run, lanes) for run in runs)
        branches = 2 if spills else 2 * run_branches(lanes)
        plane += (
            Work(crossing=copies * min(geometry.stride[1], 4), stores=copies + fills, branches=branches) * phase.rows
        )
    return plane * (batch * channels) + machine.beyond(x, copied, copied)


def tap_loads(x: View, geometry: ConvGeometry, count: float) -> Work:
    """``count`` vectors of taps: aligned where the window is a single position and planes are whole cache lines, as
    staged ones are."""
    places, line = (x.strides[0], x.strides[1], x.offset), line_elements(x.dtype)
    aligned = geometry.window == (1, 1) and (is_staged(geometry) or all(place % line == 0 for place in places))
    return Work(loads=count) if aligned else Work(crossing=count)


def stage(b: ProgramBuilder, x: View, geometry: ConvGeometry, fill: float = 0.0) -> Staged:
    """``x`` (N, C, H, W) as ``geometry`` reads it; records the copy if one is needed, once for equal requests. Padding
    reads as ``fill``."""
    batch, channels, height, width = x.shape
    out_height, out_width = geometry.output_size(height, width)
    if not is_staged(geometry):
        (kh, kw), (dh, dw) = geometry.window, geometry.dilation
        taps = np.array([u * x.strides[2] + v for u in range(0, kh * dh, dh) for v in range(0, kw * dw, dw)], np.int32)
        return Staged(x, x.strides[2], x.strides[1], x.strides[0], taps, out_height, out_width)
    layout = Layout(geometry, height, width)
    key = ("stage", x, geometry, fill)
    view = b.shared.get(key)
    if view is None:
        view = b.shared[key] = b.tensor(f"{b.layer or x.buffer}.staged", (batch, channels, layout.plane), x.dtype)
        kernel = Stage(known_stride(geometry))
        sizes = {"plane": layout.plane, "channels": channels, "x_image": x.strides[0], "x_plane": x.strides[1]}
        b.call(
            kernel,
            {"x": x, "y": view, **sizes, **copy_args(b, view.buffer, x, layout, fill)},
            work=batch * channels,
            arithmetic=x.dtype,
        )
    return Staged(view, layout.pitch, layout.plane, channels * layout.plane, layout.taps, out_height, out_width)


COPY_PARAMS = (
    Param("table", "i32*"),
    *(Param(name) for name in ("phases", "pitch", "x_pitch", "x_row", "column_stride")),
    Param("fill", "f32"),
)
"""What `copy_plane` asks for."""


def copy_args(
    b: ProgramBuilder, name: str, x: View, layout: Layout, fill: float = 0.0
) -> dict[str, View | int | float]:
    """The values of `COPY_PARAMS`."""
    return {
        "table": b.constant(f"{name}.table", layout.table),
        "phases": len(layout.phases),
        "pitch": layout.pitch,
        "x_pitch": x.strides[2],
        "x_row": x.strides[2] * layout.geometry.stride[0],
        "column_stride": layout.geometry.stride[1],
        "fill": fill,
    }


def known_stride(geometry: ConvGeometry) -> int:
    """The column stride as `copy_plane` knows it: 1, 2 and 4 are vectorised, 3 stands for all others."""
    return geometry.stride[1] if geometry.stride[1] in (1, 2, 4) else 3


@dataclass(frozen=True)
class Stage:
    """Copies planes into staged planes; an item is a plane. ``column_stride`` is a `known_stride`."""

    column_stride: int

    @property
    def name(self) -> str:
        return f"pcc_stage_s{self.column_stride if self.column_stride != 3 else 'n'}"

    @property
    def params(self) -> tuple[Param, ...]:
        return (
            Param("x", "f32*"),
            Param("y", "f32*", writes=True),
            *(Param(name) for name in ("plane", "channels", "x_image", "x_plane")),
            *COPY_PARAMS,
        )

    def body(self, k: "KernelBuilder") -> None:
        with k.work() as item:
            image, channel = k.divide(item, k["channels"])
            source = k.let(image * k["x_image"] + channel * k["x_plane"])
            copy_plane(k, k["x"], source, k["y"], k.let(item * k["plane"]), self.column_stride)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        x, y = np.asarray(args["x"]), np.asarray(args["y"])
        channels, plane = int(args["channels"]), int(args["plane"])
        for item in range(begin, end):
            source = item // channels * int(args["x_image"]) + item % channels * int(args["x_plane"])
            reference_plane(args, x[source:], y[item * plane :])


def copy_plane(
    k: "KernelBuilder",
    x: "Buffer",
    source: "Expr",
    y: "Buffer",
    at: "Expr",
    column_stride: int,
    *,
    spills: bool = False,
) -> None:
    """Copies the plane at ``x[source]`` to the staged plane at ``y[at]``. Arguments: `COPY_PARAMS`.

    With ``spills`` it writes whole vectors, each behind those before it, and so up to one behind the plane.
    """

    def run(count: "Expr", write: Callable[["Expr", int], None]) -> None:
        if not spills:
            return exact_run(k, count, write)
        with k.loop(0, k.divide(count + (k.lanes - 1), k.lanes)[0]) as vector:
            write(vector * k.lanes, k.lanes)

    def fill(target: "Expr", count: "Expr") -> None:
        run(count, lambda i, lanes: k.store(y, target + i, k.splat(k["fill"], lanes), lanes))

    def every(first: "Expr", lanes: int, stride: int = column_stride) -> "Expr":
        """``lanes`` elements from ``first`` on, a stride apart."""
        if stride == 1 or lanes == 1:
            return k.load(x, first, lanes)
        low, high = (k.let(every(first + part, lanes, stride // 2)) for part in (0, lanes * (stride // 2)))
        return k.every_second(low, high, lanes)

    def copy_row(first: "Expr", target: "Expr", count: "Expr") -> None:
        if column_stride != 3:
            run(count, lambda i, lanes: k.store(y, target + i, every(first + i * column_stride, lanes), lanes))
        else:
            with k.loop(0, count) as i:
                k.store(y, target + i, k.load(x, first + i * k["column_stride"]))

    with k.loop(0, k["phases"]) as phase:
        start, end, lead, rows, columns, row, column = (
            k.let(k.load(k["table"], phase * 7 + field)) for field in range(7)
        )
        target = k.let(at + start)
        fill(target, lead)
        first = k.let(source + row * k["x_pitch"] + column)
        gap = k.let(k["pitch"] - columns)
        with k.loop(0, rows) as r:
            row_at = k.let(target + lead + r * k["pitch"])
            copy_row(k.let(first + r * k["x_row"]), row_at, columns)
            with k.when(r < rows - 1):
                fill(row_at + columns, gap)
        with k.when(rows > 0):
            done = k.let(lead + rows * k["pitch"] - gap)
            fill(target + done, end - start - done)


def reference_plane(args: Mapping[str, Argument], x: np.ndarray, y: np.ndarray) -> None:
    """`copy_plane` on numpy: both arrays start at their planes."""
    pitch, step = int(args["pitch"]), int(args["column_stride"])
    for start, stop, lead, rows, columns, row, column in np.asarray(args["table"])[: int(args["phases"]) * 7].reshape(
        -1, 7
    ):
        y[start:stop] = args["fill"]
        for r in range(rows):
            at, first = start + lead + r * pitch, row * int(args["x_pitch"]) + r * int(args["x_row"]) + column
            y[at : at + columns] = x[first : first + columns * step : step]
