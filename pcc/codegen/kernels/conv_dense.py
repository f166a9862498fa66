"""Dense 2-D convolution, any kernel, stride, padding, dilation and groups: chooses the tile and records the calls."""

from dataclasses import dataclass

import numpy as np

from pcc.codegen.kernels.dense_positions import ConvPositions
from pcc.codegen.kernels.dense_work import epilogue_strides, pack_bias, pack_weight, split_work
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.stage import Staged, cost_stage, stage, staged_pitch
from pcc.codegen.layers import Conv2d
from pcc.codegen.program import ProgramBuilder

TILES: dict[int, tuple[tuple[int, int], ...]] = {16: ((8, 2), (4, 4)), 8: ((4, 2),), 4: ((8, 2), (4, 4))}
"""(filters, vectors) of the tiles for each number of lanes; the first is taken unless another does the layer in clearly fewer cycles.

AVX2 has 16 registers, and LLVM keeps an activation's constants in some of them all the time: 12 accumulators would be spilled in the inner loop.
"""
CYCLES_PER_STORE = 3.0
"""A vector through the epilogue, as seen next to the accumulation it follows."""


@dataclass(frozen=True)
class _Rows:
    """The flat positions a kernel goes through: ``positions`` in all, of every ``pitch`` the first ``width`` are outputs."""

    positions: int
    pitch: int
    width: int


def _rows(layer: Conv2d, pitch: int) -> _Rows:
    """Planes without junk on either side are one long row."""
    height, width = layer.geometry.output_size(*layer.x.shape[2:])
    positions = (height - 1) * pitch + width
    strides = [view.strides[2] for view in (layer.y, layer.residual) if view is not None]
    return _Rows(positions, positions, positions) if height == 1 or all(stride == pitch == width for stride in strides) else _Rows(positions, pitch, width)


def _tile_cycles(depth: int, filters: int, vectors: int) -> int:
    """One fused multiply-add a cycle."""
    return int((depth + CYCLES_PER_STORE) * filters * vectors)


def _kernel_cycles(layer: Conv2d, lanes: int, tile: tuple[int, int]) -> float:
    weight = layer.weight
    assert isinstance(weight, np.ndarray)
    filters, vectors = tile
    blocks = -(-(weight.shape[0] // layer.groups) // filters)
    tiles = -(-_rows(layer, staged_pitch(layer.x, layer.geometry)).positions // (vectors * lanes))
    return float(layer.x.shape[0] * layer.groups * blocks * tiles * _tile_cycles(weight[0].size, filters, vectors))


def _choose(layer: Conv2d, lanes: int) -> tuple[int, int]:
    tiles = TILES[lanes]
    best = min(tiles, key=lambda tile: _kernel_cycles(layer, lanes, tile))
    return best if _kernel_cycles(layer, lanes, best) < 0.9 * _kernel_cycles(layer, lanes, tiles[0]) else tiles[0]


def cost_conv_dense(layer: Conv2d, lanes: int) -> float:
    """Modelled cycles on one core: one vector multiply-add a cycle over whole tiles (junk columns and filled-up blocks included), 3 cycles a
    stored vector, 2.5 a staged one. Weights and inputs are assumed to arrive in time, which holds from about 10 outputs a weight on."""
    return _kernel_cycles(layer, lanes, _choose(layer, lanes)) + cost_stage(layer.x, layer.geometry, lanes)


def emit_conv_dense(layer: Conv2d, b: ProgramBuilder) -> None:
    """Records the convolution; ``layer.weight`` is a dense array."""
    weight = layer.weight
    assert isinstance(weight, np.ndarray)
    staged = stage(b, layer.x, layer.geometry)
    filters, vectors = _choose(layer, b.lanes)
    kernel = ConvPositions(filters, vectors, b.lanes, Epilogue(layer.residual is not None, layer.activation))
    out_channels, channels = weight.shape[:2]
    rows = _rows(layer, staged.pitch)
    offsets = _offsets(staged, channels)
    per_group = out_channels // layer.groups
    split, work = split_work(
        images=layer.x.shape[0],
        groups=layer.groups,
        blocks=-(-per_group // filters),
        tiles=-(-rows.positions // kernel.run),
        depth=offsets.size,
        block=filters,
        tile_cycles=_tile_cycles(offsets.size, filters, vectors),
    )
    b.call(
        kernel,
        {
            "x": staged.view,
            "x_image": staged.image,
            "x_group": channels * staged.plane,
            "w": b.constant(f"{layer.name}.weight", pack_weight(weight, layer.groups, filters)),
            "bias": b.constant(f"{layer.name}.bias", pack_bias(layer.bias, out_channels, layer.groups, filters)),
            "offsets": b.constant(f"offsets_{channels}x{len(staged.taps)}_{staged.plane}", offsets),
            "positions": rows.positions,
            "pitch": rows.pitch,
            "width": rows.width,
            "filters": per_group,
            **epilogue_strides(layer.y, layer.residual),
            **split,
        },
        work=work,
        macs=layer.x.shape[0] * out_channels * staged.height * staged.width * offsets.size,
    )


def _offsets(staged: Staged, channels: int) -> np.ndarray:
    """int32 (K,): where each step of the sum, channels outer and taps inner, reads relative to the position."""
    return (np.arange(channels)[:, None] * staged.plane + staged.taps).astype(np.int32).ravel()
