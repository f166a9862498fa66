"""What the two sparse convolution kernels on flat positions share: which positions an item computes, and how finished
tiles are stored.

A tile is ``size`` flat positions (see `stage`). The last tile of a plane starts early so that it does not compute past
the last position, and stores only what the tile before it has not. Junk columns are computed and not stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Kernel, Param
from pcc.codegen.kernels.epilogue import Epilogue, channel_arrays
from pcc.codegen.kernels.runs import exact_run
from pcc.codegen.kernels.stage import Staged, staged_pitch
from pcc.codegen.layers import Conv2d
from pcc.codegen.program import ProgramBuilder, View
from pcc.dtype import INT32, INT64
from pcc.errors import PccError
from pcc.sparsity.fkw import FKW

if TYPE_CHECKING:
    from pcc.codegen.builder import Buffer, Expr, KernelBuilder

INPUTS = (Param("x", "f32*"), Param("x_image"), Param("taps", "i32*"), Param("weight", "f32*"))
POSITIONS = tuple(
    Param(name) for name in ("tiles", "tile_step", "blocks", "block_step", "positions", "pitch", "height", "width")
)


def output_params(epilogue: Epilogue) -> tuple[Param, ...]:
    """Where results go: ``channels`` maps stored filters to channels of ``y``, ``residual`` and what
    each has of its own."""
    pointers = (
        Param("channels", "i32*"),
        *epilogue.params,
        Param("y", "f32*", writes=True),
        Param("y_image"),
        Param("y_plane"),
        Param("y_pitch"),
    )
    if not epilogue.residual:
        return pointers
    return (*pointers, Param("residual", "f32*"), Param("r_image"), Param("r_plane"), Param("r_pitch"))


L2_BYTES = 1 << 19
"""Inputs up to this size are taken to stay in L2 from one block of filters to the next."""

FEWEST_ITEMS = 20
"""Items of a call, where the layer has as many: two threads then differ by less than a twentieth."""

THREADS = 4
"""Fewer items do, where as many threads, or two, get the same."""

ITEM_MULTIPLIES = 1 << 14
"""Vector multiply-adds in an item, about, where there are items enough."""


def groups_of_item(groups: int, multiplies: float, tiles: int) -> int:
    """How many of a layer's filter groups an item takes, when a group does ``multiplies`` vector multiply-adds in each
    of ``tiles`` tiles."""
    of_size = round(ITEM_MULTIPLIES / max(1.0, multiplies))
    return max(1, min(groups, of_size, groups * tiles // FEWEST_ITEMS))


def is_shared_evenly(items: int, are_equal: bool) -> bool:
    """Whether threads get nearly the same of a call's items."""
    return items >= FEWEST_ITEMS or (are_equal and items % THREADS == 0)


def largest_blocks(groups: int, tiles: int) -> int:
    """The most filter groups an item can take in each of ``tiles`` tiles, where threads shall still get nearly the
    same."""
    for parts in range(1, groups):
        if is_shared_evenly(parts * tiles, groups % parts == 0):
            return -(-groups // parts)
    return 1


def position_args(staged: Staged, layer: Conv2d, size: int, blocks: int) -> tuple[dict[str, int], int]:
    """The arguments of `POSITIONS` for tiles of ``size`` positions, and the number of items.

    Items that follow each other share the weights of a block of filters while an image's input stays in L2, else they
    share the input of a tile. A plane without junk on either side is one row.
    """
    tiles = -(-staged.positions // size)
    tile_step, block_step = (1, tiles) if staged.image * layer.x.dtype.bytes <= L2_BYTES else (blocks, 1)
    args = {
        "tiles": tiles,
        "tile_step": tile_step,
        "blocks": blocks,
        "block_step": block_step,
        "positions": staged.positions,
    }
    pitches = {staged.pitch, layer.y.strides[2], staged.pitch if layer.residual is None else layer.residual.strides[2]}
    height, width, pitch = (
        (1, staged.positions, staged.positions)
        if pitches == {staged.width}
        else (staged.height, staged.width, staged.pitch)
    )
    return {**args, "pitch": pitch, "height": height, "width": width}, layer.y.shape[0] * tiles * blocks


def output_strides(layer: Conv2d) -> dict[str, int]:
    """The numbers among `output_params`."""
    args: dict[str, int] = dict(zip(("y_image", "y_plane", "y_pitch"), layer.y.strides, strict=False))
    if layer.residual is not None:
        args |= dict(zip(("r_image", "r_plane", "r_pitch"), layer.residual.strides, strict=False))
    return args


def fkw_of(layer: Conv2d) -> FKW:
    """The weight of a sparse layer; `PccError` if it is not packed."""
    if not isinstance(layer.weight, FKW):
        raise PccError(f"layer {layer.name}: a sparse convolution needs its weight packed as FKW")
    return layer.weight


def positions_of(layer: Conv2d) -> int:
    """Flat positions of a plane of the output."""
    rows, columns = layer.geometry.output_size(*layer.x.shape[2:])
    return (rows - 1) * staged_pitch(layer.x, layer.geometry) + columns


def record(
    b: ProgramBuilder, layer: Conv2d, staged: Staged, kernel: Kernel, size: int, blocks: int, parts: "Parts"
) -> None:
    """Records the call of a kernel with tiles of ``size`` positions and ``blocks`` blocks of filters; ``parts`` are its
    own tables and numbers."""
    fkw = fkw_of(layer)
    positions, work = position_args(staged, layer, size, blocks)
    tables = {
        **parts.tables,
        "channels": fkw.reorder,
        **channel_arrays(layer),
    }
    views: dict[str, View] = {
        "x": staged.view,
        "y": layer.y,
        **({} if layer.residual is None else {"residual": layer.residual}),
    }
    views |= b.named_constants(layer.name, tables)
    outputs = layer.y.shape[0] * staged.height * staged.width
    args = {**views, "x_image": staged.image, **parts.numbers, **positions, **output_strides(layer)}
    b.call(
        kernel,
        args,
        work,
        macs=fkw.weight.size * outputs,
        dense_macs=int(np.prod(fkw.shape)) * outputs,
        arithmetic=layer.x.dtype,
    )


@dataclass(frozen=True)
class Parts:
    """What a kernel takes besides positions, input and output."""

    tables: dict[str, np.ndarray]
    numbers: dict[str, int]


@dataclass(frozen=True)
class Item:
    """A decoded work item: image, block of filters, the first position computed and the first stored."""

    image: "Expr"
    block: "Expr"
    start: "Expr"
    first: "Expr"
    row: "Expr"
    """The first position's row ..."""
    column: "Expr"
    """... and column."""
    whole: "Expr"
    """Whether all positions computed are outputs of one row: then the tile is stored vector by vector."""


def decode(k: "KernelBuilder", item: "Expr", size: int) -> Item:
    """The item of that number, for tiles of ``size`` positions."""
    from tvm import tirx

    image, _ = k.divide(item, k["tiles"] * k["blocks"])
    _, block = k.divide(k.divide(item, k["block_step"])[0], k["blocks"])
    _, tile = k.divide(k.divide(item, k["tile_step"])[0], k["tiles"])
    first = k.let(tile * size)
    start = k.let(tirx.Max(tirx.Min(first, k["positions"] - size), tirx.const(0, INT32.tir())))
    row, column = k.divide(first, k["pitch"])
    return Item(image, block, start, first, row, column, tirx.And(start == first, column + size <= k["width"]))


def store_whole(k: "KernelBuilder", epilogue: Epilogue, item: Item, values: list["Expr"], channel: "Expr") -> None:
    """Stores one filter's tile, given as vectors, through the epilogue; for items that are ``whole``."""
    y_at = k.let(item.image * k["y_image"] + channel * k["y_plane"] + item.row * k["y_pitch"] + item.column)
    r_at = (
        k.let(item.image * k["r_image"] + channel * k["r_plane"] + item.row * k["r_pitch"] + item.column)
        if epilogue.residual
        else 0
    )
    parameter = epilogue.parameter(k, channel)
    for i, value in enumerate(values):
        residual = k.load(k["residual"], r_at + i * k.lanes, k.lanes) if epilogue.residual else None
        k.store(k["y"], y_at + i * k.lanes, epilogue.apply(k, value, residual, k.lanes, parameter), k.lanes)


def store_rows(
    k: "KernelBuilder", epilogue: Epilogue, item: Item, values: "Buffer", at: "Expr", size: int, channel: "Expr"
) -> None:
    """Stores the valid columns of one filter's tile, ``values[at:at + size]``, through the epilogue."""
    from tvm import tirx

    target = k.let(item.image * k["y_image"] + channel * k["y_plane"])
    source = k.let(item.image * k["r_image"] + channel * k["r_plane"]) if epilogue.residual else None
    parameter = epilogue.parameter(k, channel)
    last_row = k.let(tirx.Min(k["height"], k.divide(item.start + (size - 1), k["pitch"])[0] + 1))
    with k.loop(item.row, last_row) as row:
        begin = k.let(tirx.Max(item.first, row * k["pitch"]))
        count = k.let(tirx.Min(item.start + size, row * k["pitch"] + k["width"]) - begin)
        column = k.let(begin - row * k["pitch"])
        value_at = k.let(at + begin - item.start)
        y_at = k.let(target + row * k["y_pitch"] + column)

        def store(i: "Expr", lanes: int) -> None:
            residual = k.load(k["residual"], r_at + i, lanes) if epilogue.residual else None
            value = epilogue.apply(k, k.load(values, value_at + i, lanes), residual, lanes, parameter)
            k.store(k["y"], y_at + i, value, lanes)

        r_at = k.let(source + row * k["r_pitch"] + column) if epilogue.residual else None
        with k.when(count > 0):
            exact_run(k, count, store)


def aligned_local(k: "KernelBuilder", size: int) -> tuple["Buffer", "Expr"]:
    """An array on the stack and the index of its first element that starts a cache line; ``size`` elements follow it.

    The code generator aligns the stack to 16 bytes only, and wider vectors that cross a line cost twice.
    """
    from tvm import tirx
    from tvm.tirx.script import builder as T

    line = 16
    if k.lanes <= 4:
        return k.local(size), 0
    array = k.local(size + line)
    address = tirx.reinterpret(INT64.tir(), T.address_of(array[0]))
    element = tirx.const(k.real.bytes.bit_length() - 1, INT64.tir())
    past = k.let(tirx.Cast(INT32.tir(), address >> element) & (line - 1))
    return array, k.let((line - past) & (line - 1))


def broadcast_weights(k: "KernelBuilder", buffer: "Expr", at: "Expr", count: int) -> list["Expr"]:
    """``count`` consecutive weights, each in all lanes: loaded four at a time where the instruction set multiplies by a
    lane."""
    if not k.isa.multiply_add(k.real).by_lane:
        return [k.let(k.splat(k.load(buffer, at + i), k.lanes)) for i in range(count)]
    loaded = [k.let(k.load(buffer, at + i, k.lanes)) for i in range(0, count, k.lanes)]
    return [k.lane(loaded[i // k.lanes], i % k.lanes, k.lanes) for i in range(count)]


@dataclass(frozen=True)
class ReferenceItem:
    """`Item` on numpy: ``x`` starts at the tile's first position in channel 0 of its image."""

    image: int
    block: int
    start: int
    first: int
    x: np.ndarray


def reference_items(args: Mapping[str, Argument], begin: int, end: int, size: int) -> list[ReferenceItem]:
    """The items ``[begin, end)`` as `decode` finds them."""
    tiles, blocks, positions = (int(args[name]) for name in ("tiles", "blocks", "positions"))
    items = []
    for item in range(begin, end):
        image, block = item // (tiles * blocks), item // int(args["block_step"]) % blocks
        first = item // int(args["tile_step"]) % tiles * size
        start = max(min(first, positions - size), 0)
        items.append(
            ReferenceItem(image, block, start, first, np.asarray(args["x"])[image * int(args["x_image"]) + start :])
        )
    return items


def reference_store(
    args: Mapping[str, Argument], epilogue: Epilogue, item: ReferenceItem, values: np.ndarray, channel: int
) -> None:
    """`store_rows` on numpy: ``values`` is the tile of one filter, (size,)."""
    y, pitch = np.asarray(args["y"]), int(args["pitch"])
    stop = item.start + len(values)
    for row in range(item.first // pitch, min(int(args["height"]), (stop - 1) // pitch + 1)):
        begin, end = max(item.first, row * pitch), min(stop, row * pitch + int(args["width"]))
        if begin >= end:
            continue
        column = begin - row * pitch
        residual = None
        if epilogue.residual:
            at = (
                item.image * int(args["r_image"]) + channel * int(args["r_plane"]) + row * int(args["r_pitch"]) + column
            )
            residual = np.asarray(args["residual"])[at : at + end - begin]
        at = item.image * int(args["y_image"]) + channel * int(args["y_plane"]) + row * int(args["y_pitch"]) + column
        y[at : at + end - begin] = epilogue.reference(
            values[begin - item.start : end - item.start], residual, epilogue.reference_parameter(args, channel)
        )
