"""ONNX's element types and tensors as PyTorch's."""

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from pcc.frontend.onnx.emitter import Refused

_TYPES = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.BOOL: torch.bool,
}


def torch_type(number: int | ir.DataType) -> torch.dtype:
    """`Refused` for strings, complex numbers, 8-bit floats, and unsigned integers beyond 8 bits, with which PyTorch
    does not compute."""
    try:
        kind = ir.DataType(number)
    except ValueError:
        raise Refused(f"element type {number}, which ONNX does not have") from None
    if kind not in _TYPES:
        raise Refused(
            f"elements of type {kind.name}; pcc reads floats of 16 to 64 bits, signed integers, bytes and booleans"
        )
    return _TYPES[kind]


def torch_tensor(tensor: ir.TensorProtocol) -> Tensor:
    """The numbers of a file's tensor, copied."""
    kind = torch_type(tensor.dtype)
    array = np.array(tensor.numpy())
    if tuple(array.shape) != tuple(int(size) for size in tensor.shape):  # type: ignore[arg-type]  # tensors have fixed shapes
        raise Refused(f"the tensor {tensor.name} holds other numbers than its shape says")
    if kind == torch.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def onnx_type(kind: torch.dtype) -> int:
    return next(number.value for number, known in _TYPES.items() if known == kind)
