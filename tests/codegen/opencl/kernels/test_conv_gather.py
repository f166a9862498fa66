"""Sparse convolutions with a table of taps on a GPU driver for processors."""

from functools import partial

import pytest

from pcc.codegen.layers import ConvGeometry
from pcc.codegen.opencl.kernels.conv_gather import gather_call
from pcc.codegen.opencl.kernels.tile import Tile
from pcc.dtype import FLOAT16, FLOAT32, DType
from tests.codegen.opencl.kernels.support import Case
from tests.codegen.opencl.kernels.test_conv_direct import PATTERNS, RELU, SAME, run_case


@pytest.mark.parametrize("tile", [Tile(4, 1, 1), Tile(4, 1, 2), Tile(1, 1, 1)], ids=str)
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT16], ids=str)
def test_patterns(tile: Tile, dtype: DType) -> None:
    run_case(Case(17, 8, 7, 7, SAME, 2, RELU, dtype=dtype), tile, PATTERNS, 0.6, gather_call)
    run_case(Case(3, 4, 9, 13, SAME, residual=True, dtype=dtype), tile, PATTERNS, 0.6, gather_call)


def test_weights_are_loaded_where_they_are_used() -> None:
    sunk = partial(gather_call, sinks_weights=True)
    run_case(Case(17, 8, 7, 7, SAME, activation=RELU), Tile(4, 1, 2), PATTERNS, 0.6, sunk)


@pytest.mark.parametrize(
    "geometry",
    [
        ConvGeometry((3, 3), (2, 2), (0, 0, 1, 1)),
        ConvGeometry((3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
        ConvGeometry((5, 5), (3, 2), (2, 2, 2, 2)),
        ConvGeometry((1, 1), (2, 2)),
    ],
    ids=str,
)
def test_windows(geometry: ConvGeometry) -> None:
    run_case(Case(3, 8, 15, 19, geometry), Tile(4, 1, 2), None, 0.7, gather_call)
