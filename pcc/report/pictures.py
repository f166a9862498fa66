"""Weights as pictures: which are zero, and which patterns connections have."""

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch.fx import GraphModule

from pcc.ir.annotations import KernelChoice, annotation
from pcc.ir.graph import arguments, constant, layer_name
from pcc.ir.ops import UNPACK, packed_weight
from pcc.sparsity.formats import format_named

SIDE = 128
"""Pixels of a picture, at most: a larger weight is averaged."""

MOST_PATTERNS = 16
"""That are shown; the others are counted together."""


def weights_of(graph_module: GraphModule) -> dict[str, np.ndarray]:
    """The weights of convolutions and linear layers by layer, unpacked: (O, I/groups, kh, kw) or (M, K)."""
    found = {}
    for node in graph_module.graph.nodes:
        if annotation(node, KernelChoice):
            weight = arguments(node)["weight"]
            found[layer_name(node)] = (
                format_named(arguments(weight)["format"]).unpack(packed_weight(weight))
                if weight.target is UNPACK
                else constant(weight).numpy()
            )
    return found


def mask_picture(weight: np.ndarray) -> str:
    """A PNG as a ``data:`` URL: a row for each filter, a column for each input channel, the darker the more weights of
    the connection are not zero."""
    kept = (weight.reshape(*weight.shape[:2], -1) != 0).mean(axis=2)
    for axis in (0, 1):
        edges = np.linspace(0, kept.shape[axis], min(SIDE, kept.shape[axis]) + 1).astype(int)
        kept = np.add.reduceat(kept, edges[:-1], axis=axis) / np.diff(edges).reshape((-1, 1) if axis == 0 else (1, -1))
    file = io.BytesIO()
    Image.fromarray(np.round(255 * (1 - kept)).astype(np.uint8)).save(file, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


@dataclass(frozen=True)
class PatternCount:
    """How many connections keep just these taps."""

    rows: Sequence[Sequence[bool]]
    connections: int
    share: float
    """Of the connections that keep any."""


@dataclass(frozen=True)
class PatternCounts:
    """The patterns of a network's 3x3 connections, the most frequent first."""

    patterns: Sequence[PatternCount]
    others: int
    """Connections of patterns that are not among them."""
    removed: int
    """Connections that keep nothing."""


def count_patterns(weights: Mapping[str, np.ndarray]) -> PatternCounts | None:
    """None where no layer has a 3x3 window with a zero in it."""
    counts: Counter[bytes] = Counter()
    for weight in weights.values():
        if weight.ndim == 4 and weight.shape[2:] == (3, 3) and not weight.all():
            shapes, found = np.unique(weight.reshape(-1, 9) != 0, axis=0, return_counts=True)
            counts.update({shape.tobytes(): int(count) for shape, count in zip(shapes, found, strict=True)})
    removed = counts.pop(bytes(9), 0)
    if not counts and not removed:
        return None
    total, most = counts.total() or 1, counts.most_common(MOST_PATTERNS)
    patterns = [
        PatternCount(np.frombuffer(shape, bool).reshape(3, 3).tolist(), count, count / total) for shape, count in most
    ]
    return PatternCounts(patterns, counts.total() - sum(count for _, count in most), removed)
