"""Direct convolutions on a GPU driver for processors: patterns, connections, dense windows, any geometry."""

import re
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.layers import Conv2d, ConvGeometry
from pcc.codegen.opencl.kernels.conv_direct import ConvDirect, direct_call, taps_of
from pcc.codegen.opencl.kernels.tile import Tile
from pcc.codegen.opencl.text import opencl_text
from pcc.dtype import FLOAT16, FLOAT32, DType
from pcc.ir.activation import Activation
from pcc.sparsity import fkw as packed
from tests.codegen.opencl.kernels.support import Case, check
from tests.opencl import POCL

PATTERNS = np.array([[1, 3, 4, 5], [3, 4, 5, 7], [0, 1, 3, 4], [4, 5, 7, 8]], np.int32)
RELU = Activation("relu")
SAME = ConvGeometry((3, 3), (1, 1), (1, 1, 1, 1))


def pruned(case: Case, share: int, patterns: np.ndarray | None, kept: float, seed: int = 1) -> np.ndarray:
    """A random weight whose groups of ``share`` filters share connections and patterns."""
    random = np.random.default_rng(seed)
    taps = int(np.prod(case.geometry.window))
    inputs = case.channels // case.groups
    weight = random.standard_normal((case.filters // share, share, inputs, taps)).astype(np.float32)
    mask = np.zeros((case.filters // share, 1, inputs, taps), bool)
    table = np.arange(taps)[None] if patterns is None else patterns
    choice = random.integers(len(table), size=(case.filters // share, inputs))
    np.put_along_axis(mask, table[choice][:, None], values=True, axis=3)
    mask &= random.random((case.filters // share, 1, inputs, 1)) < kept
    return (weight * mask).reshape(case.filters, inputs, *case.geometry.window)


def run_case(
    case: Case,
    tile: Tile,
    patterns: np.ndarray | None = None,
    kept: float = 1.0,
    call: Callable[..., Any] = direct_call,
    platform: str = POCL,
) -> None:
    weight = pruned(case, tile.filters, patterns, kept)
    order = np.random.default_rng(3).permutation(case.filters // tile.filters)
    if case.groups > 1:
        order = np.arange(case.filters // tile.filters)
    order = (order[:, None] * tile.filters + np.arange(tile.filters)).ravel()
    fkw = packed.pack(weight, case.groups, patterns, tile.filters, order)

    def calls(layer: Conv2d) -> list[Any]:
        return [call(layer, fkw, tile, FLOAT32, image, (4, 2, 1)) for image in range(case.images)]

    check(case, weight, calls, 1e-5 if case.dtype == FLOAT32 else 2e-3, platform)


@pytest.mark.parametrize(
    "tile",
    [Tile(4, 2, 4), Tile(4, 2, 2), Tile(4, 1, 2), Tile(4, 1, 1), Tile(2, 2, 2), Tile(1, 4, 4), Tile(1, 2, 8)],
    ids=str,
)
@pytest.mark.parametrize("size", [(3, 4, 5, 1), (17, 8, 7, 7), (1, 4, 9, 13), (8, 16, 14, 28)], ids=str)
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT16], ids=str)
def test_patterns(tile: Tile, size: tuple[int, int, int, int], dtype: object) -> None:
    channels, filters, height, width = size
    case = Case(channels, filters, height, width, SAME, activation=RELU, residual=width == 13, dtype=dtype)  # type: ignore[arg-type]
    run_case(case, tile, PATTERNS, kept=0.6)


@pytest.mark.parametrize(
    "geometry",
    [
        ConvGeometry((3, 3), (2, 2), (1, 1, 1, 1)),
        ConvGeometry((3, 3), (2, 2), (0, 0, 1, 1)),
        ConvGeometry((3, 3), (3, 1), (2, 0, 1, 2)),
        ConvGeometry((3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
        ConvGeometry((5, 5), (2, 2), (2, 2, 2, 2)),
        ConvGeometry((1, 1)),
        ConvGeometry((1, 1), (2, 2)),
        ConvGeometry((7, 7), (2, 2), (3, 3, 3, 3)),
        ConvGeometry((1, 7), (1, 1), (0, 3, 0, 3)),
    ],
    ids=str,
)
def test_windows(geometry: ConvGeometry) -> None:
    run_case(Case(3, 8, 15, 19, geometry, images=2), Tile(4, 1, 2), kept=0.7)
    run_case(Case(17, 5, 13, 9, geometry, activation=RELU), Tile(1, 2, 2), kept=0.4)


@pytest.mark.parametrize("tile", [Tile(4, 2, 1), Tile(4, 1, 2), Tile(4, 1, 1), Tile(1, 2, 4)], ids=str)
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT16], ids=str)
def test_weights_are_loaded_where_they_are_used(tile: Tile, dtype: DType) -> None:
    sunk = partial(direct_call, sinks_weights=True)
    run_case(Case(17, 8, 8, 16, SAME, activation=RELU, residual=True, dtype=dtype), tile, PATTERNS, 0.6, sunk)
    run_case(Case(3, 8, 13, 9, ConvGeometry((3, 3), (2, 2), (1, 1, 1, 1)), dtype=dtype), tile, call=sunk)
    run_case(Case(5, 4, 7, 13, ConvGeometry((1, 1)), dtype=dtype), tile, kept=0.7, call=sunk)


def test_sunk_weights_are_the_same_loads() -> None:
    """Of a turn: as many loads, but the last of the weights behind multiply-adds."""
    taps = taps_of(PATTERNS[:1], SAME)
    first, sunk = (
        opencl_text(
            ConvDirect(taps, (1, 1), Tile(4, 1, 2), Epilogue(), FLOAT16, FLOAT16, 4, sinks_weights=sinks_weights)
        )
        .split("while (1)")[1]
        .split("break;")[0]
        for sinks_weights in (False, True)
    )
    for what in (r"LOAD8_f16\(\(weight", r"LOAD4_f16\(\(x", r"LOAD_f16\(\(x", r"mad\("):
        assert len(re.findall(what, first)) == len(re.findall(what, sunk)) > 0
    assert first.rindex("(weight") < first.index("(x") < first.index("mad(")
    assert sunk.index("(x") < sunk.index("(weight") < sunk.index("mad(") < sunk.rindex("(weight")


def test_groups_and_depthwise() -> None:
    run_case(Case(8, 8, 9, 7, SAME, groups=2), Tile(4, 1, 2))
    run_case(Case(6, 6, 9, 13, SAME, groups=6), Tile(1, 2, 2))


@pytest.mark.parametrize(
    "activation", ["clip(0,6)", "leaky_relu(0.1)", "hardswish", "hardsigmoid", "silu", "sigmoid", "tanh", "gelu"]
)
def test_activations(activation: str) -> None:
    run_case(Case(3, 4, 5, 7, SAME, activation=Activation.parse(activation), residual=True), Tile(4, 1, 1))


def test_text(golden: Callable[[str, str], None]) -> None:
    """The whole text of a kernel of each storage."""
    taps = taps_of(PATTERNS[:2], SAME)
    for dtype, arithmetic in ((FLOAT32, FLOAT32), (FLOAT16, FLOAT32), (FLOAT16, FLOAT16)):
        kernel = ConvDirect(
            taps, (1, 1), Tile(4, 1, 1), Epilogue(True, RELU), dtype, arithmetic, 1, sinks_weights=False
        )
        golden(opencl_text(kernel), f"conv_direct_{dtype.short}_{arithmetic.short}")


def test_patterns_have_loops_of_their_own() -> None:
    kernel = ConvDirect(
        taps_of(PATTERNS, SAME), (1, 1), Tile(4, 2, 2), Epilogue(), FLOAT32, FLOAT32, 4, sinks_weights=False
    )
    text = opencl_text(kernel)
    assert text.count("while (") == len(PATTERNS)
    loops = text.split("for (int")[1:]
    assert all(a.count("mad(") == 4 * 4 * 4 for a, _ in pairwise(loops))
    assert all(loop.count("LOAD8_f32((weight") == 2 for loop in loops)
