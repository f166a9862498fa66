"""Winograd's kernels on a GPU driver for processors."""

import math
from typing import Any

import numpy as np
import pytest

from pcc.codegen.layers import Conv2d, ConvGeometry
from pcc.codegen.opencl.kernels.winograd import WinogradProduct
from pcc.codegen.opencl.kernels.winograd_calls import winograd_calls
from pcc.codegen.opencl.work_group import range_over
from pcc.codegen.program import View, contiguous_strides
from pcc.dtype import FLOAT16, FLOAT32, DType
from pcc.ir.activation import Activation
from tests.codegen.opencl.kernels.support import Case, check
from tests.opencl import POCL

SAME = ConvGeometry((3, 3), (1, 1), (1, 1, 1, 1))


def run_case(case: Case, outputs: int, filters: int, vectors: int, tiles: int = 4, platform: str = POCL) -> None:
    weight = np.random.default_rng(2).standard_normal((case.filters, case.channels, 3, 3)).astype(np.float32)
    weight /= math.sqrt(9 * case.channels)
    buffers: dict[str, np.ndarray] = {}

    def scratch(name: str, elements: int) -> View:
        buffers[name] = np.full(elements, np.nan, case.dtype.numpy)
        return View(name, (elements,), contiguous_strides((elements,)), dtype=case.dtype)

    def calls(layer: Conv2d) -> list[Any]:
        product = WinogradProduct(outputs, case.dtype, FLOAT32, filters, vectors)
        return [
            call
            for image in range(case.images)
            for call in winograd_calls(layer, product, scratch, image, range_over, tiles)
        ]

    check(case, weight, calls, 2e-5 if case.dtype == FLOAT32 else 2e-2, platform, buffers)


@pytest.mark.parametrize("outputs", [2, 4])
@pytest.mark.parametrize("product", [(4, 1), (8, 1), (8, 2), (8, 4)], ids=str)
@pytest.mark.parametrize("size", [(3, 4, 5, 1), (17, 9, 7, 7), (1, 4, 9, 13), (8, 16, 14, 28)], ids=str)
def test_sizes(outputs: int, product: tuple[int, int], size: tuple[int, int, int, int]) -> None:
    channels, filters, height, width = size
    case = Case(channels, filters, height, width, SAME, 2, Activation("relu"), residual=width == 13)
    run_case(case, outputs, *product)


@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (2, 0, 1, 2), (0, 1, 2, 0)])
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT16], ids=str)
def test_padding_and_storage(padding: tuple[int, int, int, int], dtype: DType) -> None:
    for outputs in (2, 4):
        run_case(Case(5, 6, 11, 10, ConvGeometry((3, 3), (1, 1), padding), dtype=dtype), outputs, 8, 1)


def test_a_tile_at_a_time() -> None:
    for size in ((7, 7), (9, 13)):
        run_case(Case(5, 6, *size, SAME, 2, residual=True), 4, 4, 1, tiles=1)


def test_f4x4_is_refused_in_fp16() -> None:
    with pytest.raises(ValueError, match="computes in fp32 alone"):
        WinogradProduct(4, FLOAT16, FLOAT16, 4, 1)
