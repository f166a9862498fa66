"""The rules of canonicalize, a family a file. A rule makes a node canonical, in place, or raises `CannotCompile`."""

import torch
from torch.fx import Node


class CannotCompile(Exception):
    """Why pcc has no form for a node, as a phrase: ``transposed convolution``."""


def require_fp32(node: Node) -> None:
    """Refuses a node that reads or computes anything but fp32."""
    for part in (node, *node.all_input_nodes):
        value = part.meta["val"]
        for tensor in value if isinstance(value, list | tuple) else (value,):
            if tensor is not None and tensor.dtype != torch.float32:
                raise CannotCompile(f"computes with {dtype_name(tensor)}; pcc compiles fp32")


def dtype_name(value: torch.Tensor) -> str:
    """``float64``, ``int32``."""
    return str(value.dtype).removeprefix("torch.")
