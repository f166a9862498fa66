"""Which columns of a row the windows of a vector of outputs read: for column strides 1 and 2, from where they are."""

import numpy as np

from pcc.codegen.layers import ConvGeometry

PART_BYTES = 16
"""What instructions that shuffle longer vectors treat alike."""


def every_second(lanes: int, part: int, first: int) -> list[int]:
    """Which lanes of two vectors that follow each other are every second, from ``first`` on: of ``part`` lanes of the
    one and of the other in turn, which is a cheaper instruction than in order where vectors are longer."""
    return [
        vector * lanes + begin + lane
        for begin in range(0, lanes, part)
        for vector in range(2)
        for lane in range(first, part, 2)
    ]


def in_order(lanes: int, part: int) -> list[int]:
    """The place of each output in a vector that `every_second` chose."""
    chosen = every_second(lanes, part, 0)
    return [chosen.index(2 * lane) for lane in range(lanes)]


def column_masks(geometry: ConvGeometry, x_width: int, width: int, lanes: int, part: int) -> np.ndarray:
    """int32 (V, kw, lanes): -1 where a tap of the outputs of a vector of a row is inside, else 0. The last vector
    begins early; with stride 2 lanes are as `every_second` leaves them."""
    vectors = -(-width // lanes)
    first = np.minimum(np.arange(vectors) * lanes, max(0, width - lanes))
    taps = np.arange(geometry.window[1]) * geometry.dilation[1] - geometry.padding[1]
    column = (first[:, None, None] + np.arange(lanes)) * geometry.stride[1] + taps[:, None]
    masks = np.where((column >= 0) & (column < x_width), -1, 0).astype(np.int32)
    return masks[..., np.argsort(in_order(lanes, part))] if geometry.stride[1] == 2 else masks
