"""What the dense convolution kernels share: packed weights, work items, and the numpy meaning of an item.

Filters of a group are cut into *blocks*, outputs of an image into *tiles*. A work item is (image, group, run of blocks,
run of tiles), tiles fastest, so consecutive items use the same weights while they are in the L2 cache. The depth K of
the sum is one loop over (channel, tap) with a table that says how far each step's input lies from the output's
position.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.program import View
from pcc.dtype import FLOAT32

if TYPE_CHECKING:
    from pcc.codegen.builder import Expr, KernelBuilder

WEIGHTS_IN_L2 = 256 * 1024
"""Bytes of weights an item goes through again for each of its tiles."""
ITEM_CYCLES = 60_000
"""About what an item should cost: 10 to 100 us."""
RUN = 16
"""Tiles, at most, that an item goes through with the weights of a block while they stay in the L1 cache."""

WORK_PARAMS = tuple(
    Param(name)
    for name in (
        "groups",
        "filters",
        "blocks",
        "blocks_per_item",
        "block_chunks",
        "tiles",
        "tiles_per_item",
        "tile_chunks",
        "depth",
        "share_ahead",
    )
)


def pointer_params(epilogue: Epilogue) -> tuple[Param, ...]:
    residual = (Param("residual", "f32*"),) if epilogue.residual else ()
    return (
        Param("x", "f32*"),
        Param("w", "f32*"),
        *epilogue.params,
        Param("offsets", "i32*"),
        *residual,
        Param("y", "f32*", writes=True),
    )


def stride_params(epilogue: Epilogue) -> tuple[Param, ...]:
    names = ["x_image", "x_group", "y_image", "y_plane", "y_row"]
    return tuple(Param(name) for name in [*names, *(["r_image", "r_plane", "r_row"] if epilogue.residual else [])])


def pack_weight(weight: np.ndarray, groups: int, block: int) -> np.ndarray:
    """(O, I/groups, kh, kw) to (groups, blocks, K, block) with K = I/groups * kh * kw; filters that fill up a group's
    last block are zero."""
    per_group = weight.shape[0] // groups
    blocks = -(-per_group // block)
    packed = np.zeros((groups, blocks * block, weight[0].size), weight.dtype)
    packed[:, :per_group] = weight.reshape(groups, per_group, -1)
    return packed.reshape(groups, blocks, block, -1).transpose(0, 1, 3, 2)


def pack_channels(values: np.ndarray, groups: int, block: int) -> np.ndarray:
    """What each filter has one of, (O,), to (groups, blocks, block), zeros where no filter is."""
    per_group = len(values) // groups
    packed = np.zeros((groups, -(-per_group // block) * block), np.float32)
    packed[:, :per_group] = values.reshape(groups, per_group)
    return packed


def epilogue_strides(y: View, residual: View | None) -> dict[str, View | int | float]:
    """The arguments for ``y``'s and the residual's pointers and strides."""
    args: dict[str, View | int | float] = {
        "y": y,
        "y_image": y.strides[0],
        "y_plane": y.strides[1],
        "y_row": y.strides[2],
    }
    if residual is not None:
        args |= {
            "residual": residual,
            "r_image": residual.strides[0],
            "r_plane": residual.strides[1],
            "r_row": residual.strides[2],
        }
    return args


def split_work(
    images: int,
    groups: int,
    blocks: int,
    tiles: int,
    depth: int,
    block: int,
    tile_cycles: int,
    together: int = 1,
    weights_stay: bool = False,
) -> tuple[dict[str, int], int]:
    """How many blocks and tiles an item covers, as arguments, and the number of items. The last of so many tiles as
    ``together`` says overlaps the one before: these two are in the same item. ``weights_stay``: see `tiles_of_work`.

    ``share_ahead`` is how many of the next blocks' weights each step of the depth has to ask for, if all tiles are to
    have asked for all of them.
    """
    blocks_per_item = max(1, min(blocks, WEIGHTS_IN_L2 // (FLOAT32.bytes * depth * block)))
    is_one_row = together == tiles > 1
    together = 1 if is_one_row else together
    rows = tiles // together
    if weights_stay:
        tiles_per_item = -(-rows // -(-tiles // RUN)) * together
        blocks_per_item = max(1, min(blocks_per_item, ITEM_CYCLES // (tile_cycles * tiles_per_item)))
    else:
        tiles_per_item = max(1, min(rows, ITEM_CYCLES // (tile_cycles * blocks_per_item * together))) * together
    while is_one_row and tiles_per_item < tiles and (tiles_per_item == 1 or tiles % tiles_per_item == 1):
        tiles_per_item += 1
    block_chunks, tile_chunks = -(-blocks // blocks_per_item), -(-tiles // tiles_per_item)
    args = {
        "groups": groups,
        "blocks": blocks,
        "blocks_per_item": blocks_per_item,
        "block_chunks": block_chunks,
        "tiles": tiles,
        "tiles_per_item": tiles_per_item,
        "tile_chunks": tile_chunks,
        "depth": depth,
        "share_ahead": -(-block // tiles) if block_chunks > 1 else 0,
    }
    return args, images * groups * block_chunks * tile_chunks


@dataclass(frozen=True)
class Tile:
    """Where a kernel stands: which image, group, block and tile, and where their data starts."""

    tile: "Expr"
    block: "Expr"
    x: "Expr"
    """Offset of the group's input."""
    panel: "Expr"
    """Which block of packed weights (counted over all groups)."""
    y: "Expr"
    """Offset of the block's first filter in ``y``."""
    residual: "Expr"
    """The same in the residual (0 where there is none)."""
    ahead: "Expr"
    """Which of the weights to ask for from this tile and block on: a share of those that the next item with other
    blocks uses."""


@contextmanager
def tiles_of_work(k: "KernelBuilder", block_size: int, residual: bool, weights_stay: bool = False) -> "Generator[Tile]":
    """The loops over items, and over an item's tiles and blocks. Blocks are the inner loop, and a tile's inputs stay in
    the L1 cache; or tiles are, and a block's weights stay there."""
    from tvm import tirx

    with k.work() as item:
        rest, tile_chunk = k.divide(item, k["tile_chunks"])
        rest, block_chunk = k.divide(rest, k["block_chunks"])
        image, group = k.divide(rest, k["groups"])
        first_tile, first_block = k.let(tile_chunk * k["tiles_per_item"]), k.let(block_chunk * k["blocks_per_item"])
        last_block = k.let(tirx.min(first_block + k["blocks_per_item"], k["blocks"]))
        last_tile = k.let(tirx.min(first_tile + k["tiles_per_item"], k["tiles"]))
        x = k.let(image * k["x_image"] + group * k["x_group"])
        tiles, blocks = k.loop(first_tile, last_tile), k.loop(first_block, last_block)
        with blocks if weights_stay else tiles as outer, tiles if weights_stay else blocks as inner:
            tile, block = (inner, outer) if weights_stay else (outer, inner)
            filter = k.let(group * k["filters"] + block * block_size)
            y = k.let(image * k["y_image"] + filter * k["y_plane"])
            r = k.let(image * k["r_image"] + filter * k["r_plane"]) if residual else 0
            done = (tile * k["blocks_per_item"] + block - first_block) * k["depth"]
            ahead = (group * k["blocks"] + first_block + k["blocks_per_item"]) * k["depth"] * block_size + done * k[
                "share_ahead"
            ]
            yield Tile(tile, block, x, k.let(group * k["blocks"] + block), y, r, ahead)


def loop_over_depth(k: "KernelBuilder", first: "Expr", end: "Expr", steps: int, step: "Callable[[Expr], None]") -> None:
    """``step`` for each place of the depth in ``[first, end)``, with so many ``steps`` written out."""
    first, end = k.wide(first), k.wide(end)
    if steps > 1:
        runs, _ = k.divide(end - first, steps)
        with k.loop(0, runs) as run:
            for place in range(steps):
                step(first + run * steps + place)
        first = k.let(first + runs * steps)
    with k.loop(first, end) as depth:
        step(depth)


def items_reference(
    args: Mapping[str, Argument], begin: int, end: int, block_size: int
) -> Generator[tuple[int, int, np.ndarray, range]]:
    """(image, group, filters of the group, tiles) of each item."""
    a = {name: int(args[name]) for name in (param.name for param in WORK_PARAMS)}
    for item in range(begin, end):
        rest, tile_chunk = divmod(item, a["tile_chunks"])
        rest, block_chunk = divmod(rest, a["block_chunks"])
        image, group = divmod(rest, a["groups"])
        first, tile = block_chunk * a["blocks_per_item"] * block_size, tile_chunk * a["tiles_per_item"]
        filters = np.arange(first, min(first + a["blocks_per_item"] * block_size, a["filters"]))
        yield image, group, filters, range(tile, min(tile + a["tiles_per_item"], a["tiles"]))


def conv_reference(
    args: Mapping[str, Argument],
    epilogue: Epilogue,
    block_size: int,
    where: tuple[int, int, np.ndarray],
    position: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
) -> None:
    """Computes outputs (``row``, ``column``), which read at ``position``, of the filters in ``where`` (image, group,
    filters)."""
    x, w, bias, offsets, y = (np.asarray(args[name]) for name in ("x", "w", "bias", "offsets", "y"))
    image, group, filters = where
    depth, per_group, blocks = (int(args[name]) for name in ("depth", "filters", "blocks"))
    packed = w[: int(args["groups"]) * blocks * depth * block_size].reshape(-1, blocks, depth, block_size)[group]
    weight = packed.transpose(0, 2, 1).reshape(-1, depth)[filters]
    start = image * int(args["x_image"]) + group * int(args["x_group"])
    packed_at = group * blocks * block_size + filters[:, None]
    value = weight @ x[start + offsets[:depth, None] + position] + bias[packed_at]

    def at(name: str) -> np.ndarray:
        planes = image * int(args[f"{name}_image"]) + (group * per_group + filters) * int(args[f"{name}_plane"])
        return planes[:, None] + row * int(args[f"{name}_row"]) + column

    residual = np.asarray(args["residual"])[at("r")] if epilogue.residual else None
    y[at("y")] = epilogue.reference(value, residual, epilogue.reference_parameter(args, packed_at))
