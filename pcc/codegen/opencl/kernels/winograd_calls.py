"""A dense 3x3 layer by Winograd's kernels."""

from collections.abc import Callable

import numpy as np

from pcc.codegen.kernels.epilogue import Epilogue, channel_arrays
from pcc.codegen.layers import Conv2d
from pcc.codegen.opencl.call import DeviceCall, places_of
from pcc.codegen.opencl.kernel import LANES
from pcc.codegen.opencl.kernels.tile import row_multiple_of
from pcc.codegen.opencl.kernels.weights import transformed_weight
from pcc.codegen.opencl.kernels.winograd import WinogradInput, WinogradOutput, WinogradProduct
from pcc.codegen.program import View
from pcc.codegen.range import Range, Sizes

SLACK = 64
"""Elements behind transformed values, where the last product of a row reads."""


def tile_counts(outputs: int, height: int, width: int) -> tuple[int, int]:
    """(rows, columns) of tiles that cover a map; columns are whole vectors."""
    return -(-height // outputs), -(-width // (outputs * LANES)) * LANES


def winograd_calls(
    layer: Conv2d,
    product: WinogradProduct,
    scratch: Callable[[str, int], View],
    image: int,
    range_of: Callable[[Sizes], Range],
    tiles: int = LANES,
) -> list[DeviceCall]:
    """The calls that compute an image of a layer of stride 1. ``scratch`` makes a buffer of so many elements of the
    layer's type; ``tiles`` is how many a work-item
    transforms, ``range_of`` puts items into groups."""
    assert isinstance(layer.weight, np.ndarray)
    (filters, channels), (height, width), dtype = layer.weight.shape[:2], layer.y.shape[2:], layer.x.dtype
    outputs = product.outputs
    rows, columns = tile_counts(outputs, height, width)
    groups, places = -(-filters // product.filters), product.places
    v = scratch("winograd.v", places * channels * rows * columns + SLACK)
    m = scratch("winograd.m", places * groups * product.filters * rows * columns + SLACK)
    top, left = layer.geometry.padding[:2]
    epilogue = Epilogue(layer.residual is not None, layer.activation)
    sizes = {"tile_columns": columns, "tile_rows": rows}
    outside = {} if layer.residual is None else places_of("residual", layer.residual, image=image)
    numbers = {**sizes, "places_of_filters": groups * product.filters, "height": height, "width": width, **outside}
    return [
        DeviceCall(
            WinogradInput(outputs, dtype, product.arithmetic, (top, left), tiles),
            {"x": layer.x, "v": v},
            {},
            {**places_of("x", layer.x, image=image), "height": layer.x.shape[2], "channels": channels, **sizes},
            range_of((columns // tiles, rows, channels)),
        ),
        DeviceCall(
            product,
            {"v": v, "m": m},
            {},
            {"channels": channels, "groups": groups, "tile_vectors": rows * columns // LANES},
            range_of((-(-rows * columns // LANES // product.vectors), groups, places)),
            places * filters * channels * rows * columns,
            {"u": transformed_weight(layer.weight, outputs, product.filters, dtype)},
        ),
        DeviceCall(
            WinogradOutput(outputs, dtype, product.arithmetic, epilogue, row_multiple_of(width, dtype), tiles),
            {"m": m, "y": layer.y, **({} if layer.residual is None else {"residual": layer.residual})},
            {**channel_arrays(layer), "filters": np.arange(filters, dtype=np.int32)},
            {**places_of("y", layer.y, image=image), **numbers},
            range_of((columns // tiles, rows, filters)),
        ),
    ]
