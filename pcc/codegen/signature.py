"""What a tuning record is about: a layer by its numbers, and its weight by what kernels see of its zeros. Both are
texts, the same in every network."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pcc.codegen.layers import Conv2d, Linear, PooledConv2d
from pcc.codegen.program import View
from pcc.sparsity.fkw import FKW
from pcc.sparsity.formats import DENSE, format_named


def layer_signature(layer: Conv2d | Linear) -> str:
    """Shapes, strides of memory, attributes and epilogue: all that schedules depend on but the type of ``x`` and the
    weight's zeros."""
    stored = (
        f" {layer.weight.dtype}"
        if isinstance(layer.weight, np.ndarray) and layer.weight.dtype != layer.x.dtype.numpy
        else ""
    )
    words = [
        type(layer).__name__.lower(),
        f"x {_tensor(layer.x)}",
        f"y {_tensor(layer.y)}",
        f"weight {_sizes(layer.weight.shape)}{stored}",
    ]
    if isinstance(layer, Conv2d):
        geometry = layer.geometry
        words += [
            f"stride {_sizes(geometry.stride)}",
            f"padding {_sizes(geometry.padding)}",
            f"dilation {_sizes(geometry.dilation)}",
            f"groups {layer.groups}",
        ]
    elif layer.images > 1:
        words.append(f"images {layer.images}")
    if isinstance(layer, PooledConv2d):
        words.append(f"pool {_sizes(layer.window)}")
    if layer.residual is not None:
        words.append(f"residual {_tensor(layer.residual)}")
    return ", ".join([*words, str(layer.activation)])


def weight_summary(weights: Mapping[str, Any]) -> str:
    """The share of a weight that is not zero, in two digits, and how it is stored in each format that it fits.
    ``weights`` is the weight by format, or a text where it does not fit one."""
    dense = weights[DENSE]
    words = [f"density {np.count_nonzero(dense) / dense.size:.2g}"]
    for name, stored in sorted(weights.items()):
        if name != DENSE and not isinstance(stored, str):
            numbers = [f" {number} {getattr(stored, number)}" for number in format_named(name).numbers]
            patterns = (
                f" {len(stored.patterns)} patterns of {stored.patterns.shape[1]}" if isinstance(stored, FKW) else ""
            )
            words.append(f"{name}{patterns}{''.join(numbers)}")
    return ", ".join(words)


def _tensor(view: View) -> str:
    return _sizes(view.shape) + ("" if view.is_contiguous else f" by {_sizes(view.strides)}")


def _sizes(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))
