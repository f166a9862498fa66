"""Tensors as device kernels read them."""

import numpy as np

from pcc.codegen.opencl.planes import LEFT, Planes


def in_planes(x: np.ndarray, layout: Planes) -> np.ndarray:
    """The buffer that holds a tensor (N, C, H, W); junk behind the last plane."""
    n, c, h, w = x.shape
    held = np.zeros((n, c, h + 2 * layout.border, layout.pitch), layout.dtype.numpy)
    held[:, :, layout.border : layout.border + h, LEFT : LEFT + w] = x
    slack = np.full(layout.elements - held.size, np.float32(1e3)).astype(layout.dtype.numpy)
    return np.concatenate([held.ravel(), slack])


def from_planes(buffer: np.ndarray, layout: Planes) -> np.ndarray:
    """The tensor in a buffer. AssertionError where what lies around it is not zero."""
    n, c, h, w = layout.shape
    rows = h + 2 * layout.border
    held = buffer[: n * c * rows * layout.pitch].reshape(n, c, rows, layout.pitch).astype(np.float64)
    tensor = held[:, :, layout.border : layout.border + h, LEFT : LEFT + w].copy()
    held[:, :, layout.border : layout.border + h, LEFT : LEFT + w] = 0
    assert not held.any(), "a kernel wrote beside its map"
    return tensor
