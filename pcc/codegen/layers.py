"""Layers as the kernel families see them: views, weights and numbers, no graph. Lowering makes them from graph nodes.

Activations are NCHW with any strides but a contiguous last dimension. Each family's ``emit_*(layer, builder)`` records
the calls that compute ``y``.
"""

from dataclasses import dataclass

import numpy as np

from pcc.codegen.program import View
from pcc.ir.activation import IDENTITY, Activation
from pcc.ir.ops import window_output_size
from pcc.sparsity.formats import PackedWeight


@dataclass(frozen=True)
class ConvGeometry:
    """Where a 2-D convolution or pooling window looks. Padding is (top, left, bottom, right) and may be uneven."""

    window: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the output of an image; `PccError` where the window does not fit it."""
        return window_output_size((height, width), self.window, self.stride, self.padding, self.dilation)


@dataclass(frozen=True)
class Conv2d:
    """``y = activation(conv(x, weight) + bias + residual)``. ``weight`` is (O, I/groups, kh, kw) fp32, or packed in a
    format; ``bias`` is (O,) or None, and so is ``parameter``, that of an activation that has one for each channel."""

    name: str
    x: View
    y: View
    weight: np.ndarray | PackedWeight
    bias: np.ndarray | None
    geometry: ConvGeometry
    groups: int = 1
    residual: View | None = None
    activation: Activation = IDENTITY
    parameter: np.ndarray | None = None


@dataclass(frozen=True)
class PooledConv2d(Conv2d):
    """A convolution and the maximum of each ``window`` (rows, columns) of its outputs; windows lie side by side. ``y``
    holds the maxima."""

    window: tuple[int, int] = (2, 2)


@dataclass(frozen=True)
class Linear:
    """``y = activation(x @ weight.T + bias + residual)``: x (N, K), y (N, M); ``weight`` is (M, K) fp32, or packed in a
    format; ``bias`` is (M,) or None, and so is ``parameter``, as in `Conv2d`.

    ``images`` is the largest batch of a program for any batch, each image of which has these N rows.
    """

    name: str
    x: View
    y: View
    weight: np.ndarray | PackedWeight
    bias: np.ndarray | None
    residual: View | None = None
    activation: Activation = IDENTITY
    images: int = 1
    parameter: np.ndarray | None = None


@dataclass(frozen=True)
class Pool2d:
    """Pooling, ``mode`` is ``max``, ``avg`` or ``sum``. For ``avg`` the divisor counts padding only if
    ``count_include_pad``.

    ``y`` may be larger than the geometry alone gives (ceil mode): windows are clipped to what exists.
    """

    name: str
    x: View
    y: View
    mode: str
    geometry: ConvGeometry
    count_include_pad: bool = True


@dataclass(frozen=True)
class Resize2d:
    """Nearest or bilinear resampling to ``y``'s size; ``mode`` is ``nearest`` or ``bilinear``, as PyTorch's
    ``interpolate`` means them.

    ``scales`` are the (height, width) factors the caller gave, or None where only the size was given.
    """

    name: str
    x: View
    y: View
    mode: str
    align_corners: bool = False
    scales: tuple[float, float] | None = None


@dataclass(frozen=True)
class Copy:
    """``y[...] = x[...]`` between views of one shape (any strides): concat, slice, permute,
    padding."""

    name: str
    x: View
    y: View


@dataclass(frozen=True)
class Convert:
    """``y[...] = x[...]`` of contiguous tensors, in the element type of ``y``."""

    name: str
    x: View
    y: View


@dataclass(frozen=True)
class Fill:
    """``y[...] = value``."""

    name: str
    y: View
    value: float


@dataclass(frozen=True)
class Softmax:
    """Softmax (or log-softmax) over one dimension of a contiguous tensor."""

    name: str
    x: View
    y: View
    dim: int
    log: bool = False


@dataclass(frozen=True)
class Elementwise:
    """A fused chain, e.g. ``relu(add(x0,mul(x1,c0)))``: operands ``x0..`` are views that broadcast to ``y`` (NumPy
    rules), numbers are literals."""

    name: str
    inputs: tuple[View, ...]
    y: View
    expression: str


@dataclass(frozen=True)
class MatMul:
    """``y[b] = a[b] @ b[b]``: (B, M, K) and (B, K, N), where a batch of 1 serves all; rows are contiguous, and may lie
    apart."""

    name: str
    a: View
    b: View
    y: View


@dataclass(frozen=True)
class Gather:
    """``y[b, c, p, i] = sum over t of weight[b, t, p] * x[b, c, index[b, t, p], i]``, contiguous; see ``pcc::gather``.

    ``index`` holds int32 values in range if it is a constant, else fp32 values that are clamped to it.
    """

    name: str
    x: View
    index: View
    weight: View | None
    y: View
