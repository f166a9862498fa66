"""Reference semantics of the operators against PyTorch, and their shape functions against the reference."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from pcc.errors import PccError
from pcc.ir.ops import CONCAT, CONV2D, ELEMENTWISE, LINEAR, POOL2D, RESIZE2D, SOFTMAX, UNPACK


def run(operator: Any, *args: Any) -> torch.Tensor:
    """The operator's value, after checking that the shape function says the same of it."""
    value = operator(*args)
    mode = FakeTensorMode()

    def fake(arg: Any) -> Any:
        if isinstance(arg, torch.Tensor):
            return mode.from_tensor(arg)
        return [fake(item) for item in arg] if isinstance(arg, list) else arg

    with mode:
        shaped = operator(*map(fake, args))
    assert (shaped.shape, shaped.dtype, shaped.stride()) == (value.shape, value.dtype, value.stride())
    return value


@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 2, 3)])
@pytest.mark.parametrize(
    ("stride", "dilation", "groups"), [((1, 1), (1, 1), 1), ((2, 3), (1, 2), 3), ((3, 1), (2, 1), 1)]
)
def test_conv2d(
    padding: tuple[int, int, int, int], stride: tuple[int, int], dilation: tuple[int, int], groups: int
) -> None:
    x, weight, bias = torch.randn(2, 3, 9, 13), torch.randn(6, 3 // groups, 3, 2), torch.randn(6)
    top, left, bottom, right = padding
    plain = F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, stride, 0, dilation, groups)
    value = run(CONV2D, x, weight, bias, None, list(stride), list(padding), list(dilation), groups, "none")
    torch.testing.assert_close(value, plain)
    residual = torch.randn_like(plain)
    value = run(CONV2D, x, weight, bias, residual, list(stride), list(padding), list(dilation), groups, "clip(0,6)")
    torch.testing.assert_close(value, F.relu6(plain + residual))


def test_unpack_is_the_dense_weight() -> None:
    from pcc.sparsity.fkw import FKW, unpack
    from pcc.sparsity.formats import format_named

    rng = np.random.default_rng(0)
    fkw = FKW(
        shape=(4, 3, 3, 3),
        groups=1,
        share=2,
        patterns=np.array([[0, 1, 3, 4], [4, 5, 7, 8]], np.int32),
        reorder=np.array([2, 0, 3, 1], np.int32),
        offset=np.array([0, 2, 5], np.int32),
        index=np.array([0, 2, 0, 1, 2], np.int32),
        stride=np.array([[0, 1, 2], [0, 2, 3]], np.int32),
        weight=rng.standard_normal((5, 4, 2)).astype(np.float32),
    )
    arrays = [torch.from_numpy(getattr(fkw, name)) for name in format_named("fkw").arrays]
    torch.testing.assert_close(
        run(UNPACK, arrays, "fkw", [2], [4, 3, 3, 3], 1), torch.from_numpy(unpack(fkw)), rtol=0, atol=0
    )


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((3, 2), (2, 2), (1, 1)), ((2, 2), (3, 3), (0, 0)), ((3, 3), (2, 1), (1, 0)), ((1, 5), (1, 4), (0, 2))],
)
@pytest.mark.parametrize("size", [(7, 9), (13, 6), (5, 5)])
def test_pool2d(
    ceil_mode: bool, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], size: tuple[int, int]
) -> None:
    x = torch.randn(2, 3, *size)
    geometry = (list(kernel), list(stride), [*padding, *padding], [1, 1], ceil_mode)
    torch.testing.assert_close(
        run(POOL2D, x, "max", *geometry, True), F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil_mode)
    )
    for counted in (False, True):
        expected = F.avg_pool2d(x, kernel, stride, padding, ceil_mode, counted)
        torch.testing.assert_close(run(POOL2D, x, "avg", *geometry, counted), expected)


def test_pool2d_dilated_and_unevenly_padded() -> None:
    x = torch.randn(1, 2, 9, 8)
    value = run(POOL2D, x, "max", [3, 2], [1, 2], [2, 0, 1, 1], [2, 3], False, True)
    padded = F.pad(x, (0, 1, 2, 1), value=-torch.inf)
    torch.testing.assert_close(value, F.max_pool2d(padded, (3, 2), (1, 2), 0, (2, 3)))


@pytest.mark.parametrize(("mode", "align"), [("nearest", False), ("bilinear", False), ("bilinear", True)])
def test_resize2d(mode: str, align: bool) -> None:
    x, option = torch.randn(2, 3, 5, 7), {"align_corners": align} if mode == "bilinear" else {}
    torch.testing.assert_close(
        run(RESIZE2D, x, [11, 4], mode, align, None), F.interpolate(x, (11, 4), mode=mode, **option)
    )
    factors = F.interpolate(x, scale_factor=(1.7, 2.5), mode=mode, **option)
    torch.testing.assert_close(run(RESIZE2D, x, list(factors.shape[2:]), mode, align, [1.7, 2.5]), factors)


def test_linear_softmax_concat_elementwise() -> None:
    x, weight, bias, residual = torch.randn(3, 5), torch.randn(4, 5), torch.randn(4), torch.randn(3, 4)
    torch.testing.assert_close(
        run(LINEAR, x, weight, bias, residual, "tanh"), torch.tanh(x @ weight.T + bias + residual)
    )
    torch.testing.assert_close(run(SOFTMAX, x, 0, False), F.softmax(x, 0))
    torch.testing.assert_close(run(SOFTMAX, x, 1, True), F.log_softmax(x, 1))
    torch.testing.assert_close(run(CONCAT, [x, weight], 0), torch.cat([x, weight]))
    torch.testing.assert_close(run(ELEMENTWISE, [x, bias[:1]], "mul(x1,relu(x0))"), bias[0] * F.relu(x))


@pytest.mark.parametrize(
    ("operator", "args", "words"),
    [
        (
            CONV2D,
            (torch.ones(1, 3, 4, 4), torch.ones(2, 4, 3, 3), None, None, [1, 1], [0] * 4, [1, 1], 1, "none"),
            "does not fit weight",
        ),
        (
            CONV2D,
            (torch.ones(1, 3, 2, 9), torch.ones(2, 3, 3, 3), None, None, [1, 1], [0] * 4, [1, 1], 1, "none"),
            "does not fit an image",
        ),
        (LINEAR, (torch.ones(2, 3), torch.ones(4, 5), None, None, "none"), "does not fit weight"),
        (POOL2D, (torch.ones(1, 1, 4, 4), "median", [2, 2], [2, 2], [0] * 4, [1, 1], False, True), "not a pooling"),
        (RESIZE2D, (torch.ones(1, 1, 4, 4), [8, 8], "bicubic", False, None), "choose nearest or bilinear"),
    ],
)
def test_shapes_that_do_not_fit(operator: Any, args: tuple[Any, ...], words: str) -> None:
    mode = FakeTensorMode()
    with mode, pytest.raises(PccError, match=words):
        operator(*(mode.from_tensor(arg) if isinstance(arg, torch.Tensor) else arg for arg in args))
