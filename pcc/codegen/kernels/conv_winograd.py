"""Winograd convolution: dense 3x3 windows at stride 1, two to five times fewer multiplies for some more additions, with
the max pool after it or without.

The form F(m x m, 3 x 3) is part of the schedule. A form that loses too many digits in a layer, by its weights and
channels, is not offered for it: `MOST_ERROR` bounds the expected error. F(2x2) loses no more than direct convolution;
F(4x4) stays within the bound up to some 900 channels, F(6x6) up to some 70. Tensors of fp16 are transformed and summed
in fp32: in fp16 only F(2x2) would keep its digits. Weights are transformed on the device, for its first context
(`winograd_weights`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.kernel import READ_LEAD, READ_SLACK
from pcc.codegen.kernels.conv_interleaved import window_of
from pcc.codegen.kernels.dense_work import epilogue_strides
from pcc.codegen.kernels.epilogue import Epilogue, channel_arrays
from pcc.codegen.kernels.gemm_tile import STEPS, GemmTile
from pcc.codegen.kernels.sparse_tile import is_shared_evenly
from pcc.codegen.kernels.transpose import QUARTER
from pcc.codegen.kernels.winograd_forms import FORMS, WINDOW, Form
from pcc.codegen.kernels.winograd_tile import TILE_FIELDS, WinogradTile
from pcc.codegen.kernels.winograd_weights import WinogradWeights, pack_weight
from pcc.codegen.layers import Conv2d, PooledConv2d
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import ProgramBuilder, View
from pcc.dtype import FLOAT32, REALS, DType
from pcc.sparsity.formats import DENSE

MOST_ERROR = 3.5e-6
"""The expected error of an output, root mean square, relative to the outputs, of forms that are offered (`Form.error`):
29 units in the last place."""

GEMM_TILES: dict[int, tuple[GemmTile, ...]] = {
    64: (GemmTile(8, 3), GemmTile(8, 2)),
    32: (GemmTile(4, 3), GemmTile(4, 2), GemmTile(8, 1)),
    16: (GemmTile(8, 3), GemmTile(12, 2), GemmTile(16, 1)),
}
"""For each size of vectors, in bytes."""


@dataclass(frozen=True)
class WinogradSchedule:
    """How a layer is cut: blocks of ``vectors`` vectors of tiles, and chunks of ``panels`` times the filters of the
    inner loop."""

    outputs: int
    """m of the form F(m x m, 3 x 3)."""
    gemm: GemmTile
    vectors: int
    panels: int

    def __str__(self) -> str:
        return (
            f"{self.form}, {self.gemm}, blocks of {self.vectors} vectors, chunks of {self.panels * self.gemm.filters} "
            "filters"
        )

    @property
    def form(self) -> Form:
        return FORMS[self.outputs]


@dataclass(frozen=True)
class WinogradFamily:
    """Winograd convolution with the transforms and the products in one kernel."""

    name: str
    layer: type[Conv2d]
    format: WeightFormat = DENSE
    dtypes: tuple[DType, ...] = REALS

    def candidates(self, layer: Conv2d, machine: Machine) -> list[Candidate] | str:
        geometry, window = layer.geometry, window_of(layer)
        if geometry.window != (WINDOW, WINDOW) or geometry.stride != (1, 1) or geometry.dilation != (1, 1):
            return "it is for 3x3 windows with stride and dilation 1"
        if window != (1, 1) and layer.residual is not None:
            return "a residual is added to rows in memory, not to what a tile pools"
        assert isinstance(layer.weight, np.ndarray)
        size = geometry.output_size(*layer.x.shape[2:])
        reasons, found = [], []
        for form in FORMS.values():
            if any(form.outputs % step or extent % step for step, extent in zip(window, size, strict=True)):
                reasons.append(f"the windows of the pool do not divide the tiles of {form}, or the plane")
            elif (error := form.error(layer.weight)) > MOST_ERROR:
                reasons.append(f"{form} would have an error of {error:.1e}, more than {MOST_ERROR:g}")
            else:
                found += [
                    Candidate(schedule, _work(layer, schedule, machine))
                    for schedule in _schedules(layer, form, machine)
                ]
        return found or "; ".join(reasons)

    def emit(self, layer: Conv2d, schedule: WinogradSchedule, b: ProgramBuilder) -> None:
        _emit(layer, schedule, b)


FAMILY = WinogradFamily("conv-dense-winograd", Conv2d)
POOLED_FAMILY = WinogradFamily("conv-dense-winograd-pool", PooledConv2d)


@dataclass(frozen=True)
class Tiles:
    """The tiles of the outputs of a plane, and in which lane of which vector each lies. Lanes that are left over repeat
    the last one, and store nothing."""

    row: np.ndarray
    """int64 (vectors, lanes): the first row of outputs, ..."""
    column: np.ndarray
    """... and the first column."""
    exists: np.ndarray
    """bool (vectors, lanes)."""
    across: int
    """Tiles side by side."""

    @classmethod
    def of(cls, size: tuple[int, int], outputs: int, lanes: int) -> "Tiles":
        """In each vector, four quarters of neighbouring elements take turns in the order of the tiles, as `transpose`
        puts runs of them."""
        down, across = (-(-extent // outputs) for extent in size)
        order = np.arange(lanes).reshape(QUARTER, lanes // QUARTER).T.ravel()
        place = np.arange(-(-down * across // lanes))[:, None] * lanes + order
        tile = np.minimum(place, down * across - 1)
        return cls(tile // across * outputs, tile % across * outputs, place < down * across, across)


def _emit(layer: Conv2d, schedule: WinogradSchedule, b: ProgramBuilder) -> None:
    weight, gemm, form, lanes = layer.weight, schedule.gemm, schedule.form, b.isa.lanes(FLOAT32)
    assert isinstance(weight, np.ndarray)
    filters, channels = weight.shape[0] // layer.groups, weight.shape[1]
    size, window = layer.geometry.output_size(*layer.x.shape[2:]), window_of(layer)
    tiles = Tiles.of(size, form.outputs, lanes)
    tables, whole, (left, right), runs = _tables(layer, tiles, form, lanes)
    panels = -(-filters // gemm.filters)
    chunks, blocks = -(-panels // schedule.panels), -(-len(tiles.row) // schedule.vectors)
    place = schedule.vectors * channels * lanes + lanes  # not a power of two: places would share few sets of a cache
    b.call(
        WinogradTile(
            form,
            gemm,
            lanes,
            schedule.vectors,
            left,
            right,
            Epilogue(layer.residual is not None, layer.activation),
            runs,
            window,
        ),
        {
            "x": layer.x,
            **{name: b.table(f"{layer.name}.{name}", table) for name, table in tables.items()},
            "w": _transformed(layer, schedule, b),
            **b.named_constants(layer.name, channel_arrays(layer)),
            "values": b.thread_tensor(f"{layer.name}.values", (form.inputs**2, place)),
            "products": b.thread_tensor(
                f"{layer.name}.products", (schedule.panels * gemm.filters, form.inputs**2, schedule.vectors * lanes)
            ),
            "groups": layer.groups,
            "channels": channels,
            "filters": filters,
            "height": layer.x.shape[2],
            "width": layer.x.shape[3],
            "x_image": layer.x.strides[0],
            "x_group": channels * layer.x.strides[1],
            "x_plane": layer.x.strides[1],
            "whole_begin": whole[0],
            "whole_end": whole[1],
            "vectors": len(tiles.row),
            "blocks": blocks,
            "panels": panels,
            "panels_per_chunk": schedule.panels,
            "chunks": chunks,
            "values_place": place,
            **epilogue_strides(layer.y, layer.residual),
        },
        work=layer.x.shape[0] * layer.groups * blocks * chunks,
        macs=layer.x.shape[0] * weight.size * size[0] * size[1],
    )


def _transformed(layer: Conv2d, schedule: WinogradSchedule, b: ProgramBuilder) -> View:
    """The weight as the kernel reads it: (groups, chunks, places, panels of a chunk, I/groups, filters of a panel)."""
    weight, form, filters = layer.weight, schedule.form, schedule.gemm.filters
    assert isinstance(weight, np.ndarray)
    per_group, channels = weight.shape[0] // layer.groups, weight.shape[1]
    panels = -(-per_group // filters)
    chunks = -(-panels // schedule.panels)
    numbers = {
        "channels": channels,
        "filters": per_group,
        "panels": panels,
        "panels_per_chunk": schedule.panels,
        "chunks": chunks,
    }
    return b.prepared(
        f"{layer.name}.transformed",
        (layer.groups, chunks, form.inputs**2, schedule.panels, channels, filters),
        WinogradWeights(form, filters, b.isa.lanes(FLOAT32)),
        "w",
        {"shipped": b.packed(f"{layer.name}.weight", weight, partial(pack_weight, groups=layer.groups)), **numbers},
        work=layer.groups * panels,
    )


def _tables(
    layer: Conv2d, tiles: Tiles, form: Form, lanes: int
) -> tuple[dict[str, np.ndarray], tuple[int, int], tuple[int, int], bool]:
    """The tables of a kernel; between which rows the inputs of tiles lie inside, how many columns on the left and right
    may not; whether there are runs."""
    (height, width), window = layer.x.shape[2:], window_of(layer)
    top, left = layer.geometry.padding[:2]
    row, column = tiles.row - top, tiles.column - left
    places = np.arange(form.inputs)
    rows, columns = row[..., None] + places, column[..., None] + places
    near_above, near_below = _edges((rows >= 0) & (rows < height))
    near_left, near_right = _edges((columns >= 0) & (columns < width))
    runs = has_runs(layer, form, lanes)
    first = (
        column if runs else np.clip(column, -form.inputs, width)
    )  # what lies outside as a whole is read from wherever it may be
    starts = np.clip(rows, 0, height - 1) * layer.x.strides[2] + first[..., None]  # (vectors, lanes, rows)
    ends = [
        np.where(tiles.exists, np.minimum(form.outputs, extent - begin), 0) // step
        for begin, extent, step in _extents(layer, tiles)
    ]
    at = [
        np.zeros_like(tiles.row)
        if view is None
        else tiles.row // window[0] * view.strides[2] + tiles.column // window[1]
        for view in (layer.y, layer.residual)
    ]
    stored = np.array([form.outputs // window[0], form.outputs // window[1]])
    whole = ((ends[0] == stored[0]) & (ends[1] == stored[1])).all(1)
    tables = {
        "x_at": starts[:, : QUARTER if runs else lanes].transpose(0, 2, 1),
        "tiles": np.stack([row, column, *ends, *at], axis=1),
        "whole": whole.astype(np.int32),
    }
    assert tables["tiles"].shape[1] == len(TILE_FIELDS)
    return tables, (near_above, form.inputs - near_below), (near_left, near_right), runs


def _extents(layer: Conv2d, tiles: Tiles) -> Iterator[tuple[np.ndarray, int, int]]:
    """(first output of each tile, size of the output, step of the pool) of rows, then of columns."""
    size, window = layer.geometry.output_size(*layer.x.shape[2:]), window_of(layer)
    yield from zip((tiles.row, tiles.column), size, window, strict=True)


def has_runs(layer: Conv2d, form: Form, lanes: int) -> bool:
    """Whether four columns of as many neighbouring tiles as a vector has quarters are a vector of the image: tiles do
    not wrap within one, nor is too much read before or behind a tensor."""
    width = layer.geometry.output_size(*layer.x.shape[2:])[1]
    across, left = -(-width // form.outputs), layer.geometry.padding[1]
    behind = across * form.outputs - left + QUARTER - layer.x.shape[3]
    near = left * FLOAT32.bytes <= READ_LEAD and behind * FLOAT32.bytes <= READ_SLACK
    return form.outputs == QUARTER and lanes > QUARTER and across % (lanes // QUARTER) == 0 and near


def _edges(exists: np.ndarray) -> tuple[int, int]:
    """How many of the first and of the last places of tiles do not exist in some tile; ``exists`` is bool (vectors,
    lanes, places)."""
    whole, places = np.flatnonzero(exists.all((0, 1))), exists.shape[2]
    return (int(whole[0]), places - 1 - int(whole[-1])) if len(whole) else (places, 0)


def _schedules(layer: Conv2d, form: Form, machine: Machine) -> Iterator[WinogradSchedule]:
    assert isinstance(layer.weight, np.ndarray)
    lanes, filters = machine.isa.lanes(FLOAT32), layer.weight.shape[0] // layer.groups
    vectors = len(Tiles.of(layer.geometry.output_size(*layer.x.shape[2:]), form.outputs, lanes).row)
    is_far = form.inputs**2 * layer.weight[..., 0, 0].size // layer.groups * FLOAT32.bytes > machine.l2_bytes
    for gemm in (
        replace(tile, prefetch=is_far and machine.costs.far > 0) for tile in GEMM_TILES[machine.isa.vector_bytes]
    ):
        panels = -(-filters // gemm.filters)
        for blocks in dict.fromkeys(
            -(-vectors // -(-vectors // (size * gemm.vectors))) for size in (1, 2, 4, 8, vectors)
        ):
            for panels_each in dict.fromkeys(-(-panels // count) for count in (1, 2, 4, 8, 20, panels)):
                items = layer.x.shape[0] * layer.groups * -(-vectors // blocks) * -(-panels // panels_each)
                if panels_each == 1 or is_shared_evenly(items, panels % panels_each == 0):
                    yield WinogradSchedule(form.outputs, gemm, blocks, panels_each)


def _work(layer: Conv2d, schedule: WinogradSchedule, machine: Machine) -> Work:
    """What a layer executes: transforms, products, and what comes from behind the L2 cache or goes there."""
    weight, form, lanes = layer.weight, schedule.form, machine.isa.lanes(FLOAT32)
    assert isinstance(weight, np.ndarray)
    filters, channels = weight.shape[0] // layer.groups, weight.shape[1]
    size = layer.geometry.output_size(*layer.x.shape[2:])
    tiles, places, runs = Tiles.of(size, form.outputs, lanes), form.inputs**2, has_runs(layer, form, lanes)
    vectors, panels = len(tiles.row), -(-filters // schedule.gemm.filters)
    chunks, blocks = -(-panels // schedule.panels), -(-vectors // schedule.vectors)
    last = vectors - (blocks - 1) * schedule.vectors
    products = _products(schedule.gemm, schedule.vectors, channels, machine) * (blocks - 1) + _products(
        schedule.gemm, last, channels, machine
    )
    work = _input_work(form, lanes, runs) * (channels * vectors) + products * (places * panels)
    in_parts = (tiles.row + form.outputs > size[0]) | (tiles.column + form.outputs > size[1]) | ~tiles.exists
    work += _output_work(form, lanes, runs, float(in_parts.any(1).mean())) * (filters * vectors)
    if layer.x.dtype != FLOAT32:  # what is read and written is converted
        work += Work(kept=places * channels * vectors + form.outputs**2 * filters * vectors)
    values_bytes = places * channels * schedule.vectors * machine.isa.vector_bytes
    weight_bytes = places * channels * panels * schedule.gemm.filters * FLOAT32.bytes
    work += (machine.foreseen(values_bytes) * (1 + chunks) + machine.foreseen(weight_bytes)) * blocks
    return work * (layer.x.shape[0] * layer.groups) + machine.beyond(layer.x, layer.y, layer.residual)


def _input_work(form: Form, lanes: int, runs: bool) -> Work:
    """The transform of a vector of tiles of one channel."""
    places = form.inputs**2
    loads = (1 if runs else lanes // QUARTER) * form.inputs * -(-form.inputs // QUARTER) * QUARTER
    return Work(
        fma=2 * form.inputs * form.input_adds,
        crossing=loads,
        loads=places,
        stores=places,
        scalars=loads / 2,
        kept=places,
    )


def _output_work(form: Form, lanes: int, runs: bool, in_parts: float) -> Work:
    """The transform of a vector of tiles of one filter; ``in_parts`` is the share of vectors with tiles that a plane
    does not hold as a whole."""
    m, size = form.outputs, form.inputs
    stores = m * m * (1 if runs else lanes // QUARTER)
    parts = Work(loads=2 * lanes * m, stores=lanes * m, branches=lanes * m, kept=lanes * m) * in_parts
    whole = Work(loads=size * size + m * size, stores=stores * (1 - in_parts), scalars=stores, kept=m * size)
    return parts + whole + Work(fma=(size + m) * form.output_adds)


def _products(gemm: GemmTile, vectors: int, channels: int, machine: Machine) -> Work:
    """Those of a block, for one place and the filters of a tile of the inner loop."""
    groups = -(-vectors // gemm.vectors)
    few, wide = divmod(vectors, groups)
    by_lane, total = machine.isa.multiply_add(FLOAT32).by_lane, Work()
    for count, width in ((wide, few + 1), (groups - wide, few)):
        sums = gemm.filters * width
        # Spread over a vector or not, both operands are loads from the L1 cache, and no line is crossed.
        loads = (
            Work(loads=width, scalars=gemm.filters / machine.isa.lanes(FLOAT32))
            if by_lane
            else Work(scalars=width + gemm.filters)
        )
        step = loads + Work(fma=max(sums, machine.fma_in_flight), branches=1 / STEPS)
        total += (machine.loop(step) * channels + Work(stores=sums, branches=1)) * count
    return total
