"""Resampling against PyTorch's interpolate."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pcc.codegen.isa import isa_named
from pcc.codegen.kernels.resize import ResizeBilinear, ResizeNearest, emit_resize
from pcc.codegen.layers import Resize2d
from pcc.codegen.program import ProgramBuilder
from pcc.errors import PccError
from pcc.target import Target

from .support import ALL_TARGETS, assembly, check, external_calls, rng

SIZES = [
    ((7, 13), (14, 26)),
    ((5, 1), (3, 7)),
    ((1, 7), (13, 1)),
    ((6, 9), (6, 9)),
    ((9, 17), (4, 5)),
    ((3, 700), (4, 1300)),
    ((2, 1300), (2, 3)),
]


def check_resize(
    x: np.ndarray, expected: torch.Tensor, mode: str, align: bool = False, scales: tuple[float, float] | None = None
) -> None:
    def build(b: ProgramBuilder) -> None:
        y = b.tensor("y", tuple(expected.shape))
        emit_resize(Resize2d("resize", b.input("x", x.shape), y, mode, align, scales), b)
        b.output("y", y)

    check(build, [x], [expected], rtol=0.0 if mode == "nearest" else 2e-5)


@pytest.mark.parametrize(("size", "out"), SIZES, ids=str)
def test_nearest(size: tuple[int, int], out: tuple[int, int]) -> None:
    x = rng().standard_normal((2, 3, *size), np.float32)
    check_resize(x, F.interpolate(torch.from_numpy(x), out, mode="nearest"), "nearest")


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize(("size", "out"), SIZES, ids=str)
def test_bilinear(size: tuple[int, int], out: tuple[int, int], align: bool) -> None:
    x = rng().uniform(-1, 1, (2, 3, *size)).astype(np.float32)
    check_resize(x, F.interpolate(torch.from_numpy(x), out, mode="bilinear", align_corners=align), "bilinear", align)


@pytest.mark.parametrize("scales", [(2.0, 2.0), (1.7, 2.3), (0.6, 0.45)], ids=str)
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_given_scales(mode: str, scales: tuple[float, float]) -> None:
    x = rng().uniform(-1, 1, (1, 3, 13, 11)).astype(np.float32)
    expected = F.interpolate(torch.from_numpy(x), scale_factor=scales, mode=mode, recompute_scale_factor=False)
    check_resize(x, expected, mode, scales=scales)


def test_other_modes_are_refused() -> None:
    b = ProgramBuilder("test", isa_named("avx2"))
    with pytest.raises(PccError, match="bicubic"):
        emit_resize(Resize2d("r", b.input("x", (1, 1, 2, 2)), b.tensor("y", (1, 1, 4, 4)), "bicubic"), b)


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
def test_objects_need_nothing(target: Target) -> None:
    for kernel in (ResizeNearest(), ResizeBilinear()):
        assert external_calls(assembly(kernel, target)) == set()
