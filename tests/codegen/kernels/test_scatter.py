"""Values put at places along rows, and the suppression of boxes, against the references in PyTorch."""

import numpy as np
import pytest
import torch

from pcc.codegen.kernels.nms import SuppressBoxes, emit_nms
from pcc.codegen.kernels.scatter import ScatterRows, emit_scatter
from pcc.codegen.program import ProgramBuilder
from pcc.ir.ops import NMS, SCATTER
from pcc.target import Target

from .support import ALL_TARGETS, assembly, check, external_calls, rng


@pytest.mark.parametrize("mode", ["set", "sum", "prod", "max", "min"])
@pytest.mark.parametrize(("rows", "size", "places"), [(1, 1, 1), (3, 17, 40), (2, 70, 5)])
def test_scatter(rows: int, size: int, places: int, mode: str) -> None:
    """Places occur several times; those outside are the nearest ones, and NaN the first."""
    x, updates = (rng().uniform(0.5, 1.5, shape).astype(np.float32) for shape in ((rows, size), (rows, places)))
    index = rng().integers(-1, size + 1, (rows, places)).astype(np.float32)
    index[0, 0] = np.nan
    arrays = [x, index, updates]
    expected = SCATTER(*(torch.from_numpy(array).double() for array in arrays), mode)
    if mode == "set":  # PyTorch does not say which of several comes last
        expected = torch.from_numpy(x).double()
        for row in range(rows):
            for at, value in zip(np.nan_to_num(index[row]).clip(0, size - 1).astype(int), updates[row], strict=True):
                expected[row, at] = float(value)

    def build(b: ProgramBuilder) -> None:
        y = b.tensor("y", (rows, size))
        x, at, values = (
            b.input(name, array.shape) for name, array in zip(("x", "index", "updates"), arrays, strict=True)
        )
        emit_scatter(b, y, x, at, values, mode)
        b.output("y", y)

    check(build, arrays, [expected])


@pytest.mark.parametrize(("batch", "classes", "size", "count"), [(1, 1, 1, 3), (2, 3, 41, 10), (1, 2, 130, 130)])
def test_nms(batch: int, classes: int, size: int, count: int) -> None:
    """Scores are often equal: of equal ones the first box stays. Behind the last box stands -1."""
    corners = np.sort(
        rng().uniform(0, 10, (batch, 2, 2, size)).astype(np.float32), 1
    )  # (batch, low or high, axis, box)
    boxes = np.ascontiguousarray(corners.reshape(batch, 4, size))
    boxes[:, :, :: max(2, size)] = boxes[:, :1, :: max(2, size)]  # empty
    scores = rng().integers(0, 8, (batch, classes, size)).astype(np.float32) / 8
    expected = NMS(torch.from_numpy(boxes), torch.from_numpy(scores), count, 0.3, 0.2)
    assert bool((expected[..., 0] >= 0).any())
    assert count < size or bool((expected[..., -1] < 0).all())

    def build(b: ProgramBuilder) -> None:
        y = b.tensor("y", tuple(expected.shape))
        emit_nms(b, y, b.input("boxes", boxes.shape), b.input("scores", scores.shape), count, 0.3, 0.2)
        b.output("y", y)

    check(build, [boxes, scores], [expected.double()])


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
def test_no_calls(target: Target) -> None:
    for kernel in (ScatterRows("set"), ScatterRows("max"), SuppressBoxes()):
        assert not external_calls(assembly(kernel, target))
