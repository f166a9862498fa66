"""Interpolation by tables of sources and weights, one axis after the other, and sampling at points that are computed.

The arithmetic of positions is PyTorch's: in fp32, on the tables' side once and for all.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pcc.passes.canonical import CannotCompile
from pcc.passes.composites.moves import take

_aten: Any = torch.ops.aten
_pcc: Any = torch.ops.pcc

Table = tuple[Tensor, Tensor]
"""Sources and weights (taps, outputs) of an axis."""


# ---- tables ----


def _positions(size: int, outputs: int, align_corners: bool, scale: float | None) -> Tensor:
    """Where each output lies between the inputs, in float64; ``scale`` is what the caller scaled by, if he did."""
    at = torch.arange(outputs, dtype=torch.float64)
    if align_corners:
        return at * ((size - 1) / (outputs - 1) if outputs > 1 else 0.0)
    return (at + 0.5) * _step(size, outputs, scale) - 0.5


def _step(size: int, outputs: int, scale: float | None) -> float:
    return 1 / scale if scale else size / outputs


def linear(size: int, outputs: int, align_corners: bool, scale: float | None) -> Table:
    position = _positions(size, outputs, align_corners, scale).clamp(0)
    low = position.floor().clamp(0, size - 1)
    part = (position - low).clamp(0, 1)
    return torch.stack([low, (low + 1).clamp(0, size - 1)]), torch.stack([1 - part, part])


def cubic(size: int, outputs: int, align_corners: bool, scale: float | None) -> Table:
    position = _positions(size, outputs, align_corners, scale)
    low = position.floor()
    taps = torch.arange(-1, 3, dtype=torch.float64)[:, None]
    return (low + taps).clamp(0, size - 1), _cubic(position - low - taps, -0.75)


def _cubic(distance: Tensor, a: float) -> Tensor:
    """Keys' kernel (1981)."""
    d = distance.abs()
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))


def _triangle(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp(0)


def antialiased(kernel: Callable[[Tensor], Tensor], reach: float) -> Callable[..., Table]:
    """The filter grows with the step, so that each input counts; its weights add up to 1 (as Pillow resizes)."""

    def table(size: int, outputs: int, align_corners: bool, scale: float | None) -> Table:
        step = (size - 1) / max(1, outputs - 1) if align_corners else _step(size, outputs, scale)
        stretch = max(step, 1.0)
        support = reach * stretch
        centre = (torch.arange(outputs, dtype=torch.float64) + 0.5) * step
        first, last = ((centre - support + 0.5).trunc().clamp(0), (centre + support + 0.5).trunc().clamp(0, size))
        taps = torch.arange(min(size, int(support * 2) + 2), dtype=torch.float64)[:, None]
        source = first + taps
        weight = torch.where(source < last, kernel((source - centre + 0.5) / stretch), 0.0)
        return source.clamp(0, size - 1), weight / weight.sum(0)

    return table


def nearest_exact(size: int, outputs: int, align_corners: bool, scale: float | None) -> Tensor:
    at = torch.arange(outputs, dtype=torch.float32)
    return ((at + 0.5) * _step(size, outputs, scale)).floor().clamp(0, size - 1)


def nearest(size: int, outputs: int, align_corners: bool, scale: float | None) -> Tensor:
    at = torch.arange(outputs, dtype=torch.float32)
    return (at * _step(size, outputs, scale)).floor().clamp(0, size - 1)


# ---- operators ----


def _resized(
    x: Tensor, size: Sequence[int], table_of: Callable[..., Any], align_corners: bool, scales: Sequence[float | None]
) -> Tensor:
    """Each axis after the channels by its table; the last one first, while there are fewest rows."""
    for axis in reversed(range(len(size))):
        inputs = x.shape[2 + axis]
        if inputs == size[axis] and scales[axis] in (None, 1.0):
            continue
        table = table_of(inputs, size[axis], align_corners, scales[axis])
        index, weight = table if isinstance(table, tuple) else (table, None)
        x = take(x, index, 2 + axis, None if weight is None else weight.to(torch.float32))
    return x


def by_size(table_of: Callable[..., Any]) -> Callable[..., Tensor]:
    """``upsample_*.default``: to a size, with the factors that gave it if there were some."""

    def function(
        self: Tensor,
        output_size: Sequence[int],
        align_corners: bool = False,
        scales: float | None = None,
        scales_h: float | None = None,
        scales_w: float | None = None,
    ) -> Tensor:
        return _resized(
            self, output_size, table_of, align_corners, (scales_h, scales_w) if len(output_size) == 2 else (scales,)
        )

    return function


def by_factors(table_of: Callable[..., Any]) -> Callable[..., Tensor]:
    """``upsample_*.vec``: to a size, or by factors, which then also place the samples."""

    def function(
        input: Tensor,
        output_size: Sequence[int] | None,
        scale_factors: Sequence[float] | None,
        align_corners: bool = False,
    ) -> Tensor:
        sizes = output_size or [
            int(size * factor) for size, factor in zip(input.shape[2:], scale_factors or (), strict=True)
        ]
        return _resized(
            input, sizes, table_of, align_corners, (None,) * len(sizes) if output_size else list(scale_factors or ())
        )

    return function


# ---- sampling at computed points ----

_BORDERS = ("zeros", "border", "reflection")


def grid_sampler(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    """Bilinear (0), nearest (1) or bicubic (2) samples of an image at the points (x, y) of a grid, which has -1 and 1
    at the borders."""
    if input.dim() != 4:
        raise CannotCompile("sampling of volumes; pcc samples images")
    batch, channels, height, width = input.shape
    x, y = (
        ((grid[..., axis] + 1) * size - 1) / 2 if not align_corners else (grid[..., axis] + 1) * ((size - 1) / 2)
        for axis, size in enumerate((width, height))
    )
    axes = [
        _axis(position.reshape(batch, -1), size, interpolation_mode, _BORDERS[padding_mode], align_corners)
        for position, size in ((y, height), (x, width))
    ]
    index = torch.stack([row * width + column for row, _ in axes[0] for column, _ in axes[1]], 1)
    weight = torch.stack([a * b for _, a in axes[0] for _, b in axes[1]], 1)
    return _pcc.gather(input.reshape(batch, channels, height * width, 1), index, weight).reshape(
        batch, channels, *grid.shape[1:3]
    )


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Points of an image (-1 and 1 at its borders) moved by affine maps (N, 2, 3)."""
    if len(size) != 4:
        raise CannotCompile("sampling of volumes; pcc samples images")
    axes = [
        torch.linspace(-1, 1, n) * (1 if align_corners else (n - 1) / n) if n > 1 else torch.zeros(1) for n in size[2:]
    ]
    rows, columns = (
        axis.reshape(shape).expand(*size[2:]) for axis, shape in zip(axes, ((-1, 1), (1, -1)), strict=True)
    )
    points = torch.stack([columns, rows, torch.ones(*size[2:])], -1).reshape(1, -1, 3)
    return (points @ theta.transpose(1, 2)).reshape(size[0], *size[2:], 2)


def _axis(
    position: Tensor, size: int, interpolation: int, padding: str, align_corners: bool
) -> list[tuple[Tensor, Tensor]]:
    """(source, weight) of each tap along one axis; both are fp32."""
    if interpolation != 2:
        position = _inside(position, size, padding, align_corners)
    if interpolation == 1:
        taps = [(position.round(), torch.ones_like(position))]
    elif interpolation == 0:
        low = position.floor()
        taps = [(low, 1 - (position - low)), (low + 1, position - low)]
    else:
        low = position.floor()
        taps = [
            (_inside(low + tap, size, padding, align_corners), _cubic(position - low - tap, -0.75))
            for tap in range(-1, 3)
        ]
    if padding == "zeros":
        return [(at.clamp(0, size - 1), torch.where((at >= 0) & (at <= size - 1), weight, 0.0)) for at, weight in taps]
    return [(at.clamp(0, size - 1), weight) for at, weight in taps]


def _inside(position: Tensor, size: int, padding: str, align_corners: bool) -> Tensor:
    """A position moved into the image as the padding says."""
    if padding == "zeros":
        return position
    if padding == "reflection":
        low, span = (0.0, float(size - 1)) if align_corners else (-0.5, float(size))
        if not span:
            return position * 0.0
        away = (position - low).abs()
        turns = (away / span).floor()
        rest = away - turns * span
        position = torch.where(turns / 2 == (turns / 2).floor(), rest, span - rest) + low
    return position.clamp(0, size - 1)


_TABLES: dict[str, Callable[..., Any]] = {
    "upsample_nearest1d": nearest,
    "upsample_linear1d": linear,
    "upsample_bicubic2d": cubic,
    "_upsample_nearest_exact1d": nearest_exact,
    "_upsample_nearest_exact2d": nearest_exact,
    "_upsample_bilinear2d_aa": antialiased(_triangle, 1.0),
    "_upsample_bicubic2d_aa": antialiased(lambda distance: _cubic(distance, -0.5), 2.0),
}

COMPOSITES = {
    **{getattr(_aten, name).default: by_size(table_of) for name, table_of in _TABLES.items()},
    **{getattr(_aten, name).vec: by_factors(table_of) for name, table_of in _TABLES.items()},
    _aten.affine_grid_generator.default: affine_grid,
    **dict.fromkeys((_aten.grid_sampler.default, _aten.grid_sampler_2d.default), grid_sampler),
}
