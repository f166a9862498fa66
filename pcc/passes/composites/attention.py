"""Products with vectors, distances, and attention: two matrix products around a softmax."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_aten: Any = torch.ops.aten


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa:
        shared = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(shared, -3), value.repeat_interleave(shared, -3)
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    if is_causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).tril() == 0, -torch.inf)
    if attn_mask is None:
        return scores.softmax(-1) @ value
    if attn_mask.dtype == torch.bool:
        scores, unseen = scores.masked_fill(attn_mask.logical_not(), -torch.inf), attn_mask.any(-1, True).logical_not()
    else:
        scores, unseen = scores + attn_mask, attn_mask.amax(-1, True) == -torch.inf
    return torch.where(unseen, 0.0, scores.softmax(-1) @ value)  # what sees nothing gives 0 in PyTorch


def matmul(self: Tensor, other: Tensor) -> Tensor:
    """Vectors are matrices with one row or column."""
    if self.dim() > 1 and other.dim() > 1:
        return NotImplemented
    left, right = self if self.dim() > 1 else self.unsqueeze(0), other if other.dim() > 1 else other.unsqueeze(1)
    product = left @ right
    if other.dim() == 1:
        product = product.squeeze(-1)
    return product.squeeze(-1 if other.dim() == 1 else -2) if self.dim() == 1 else product


def linear(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, *, computed: frozenset[str] = frozenset()
) -> Tensor:
    if "weight" in computed or (bias is not None and "bias" in computed):
        product = input @ weight.transpose(0, 1) if "weight" in computed else F.linear(input, weight)
        return product if bias is None else product + bias
    return NotImplemented


def baddbmm(self: Tensor, batch1: Tensor, batch2: Tensor, beta: float = 1, alpha: float = 1) -> Tensor:
    product = batch1 @ batch2
    return self * beta + product * alpha if beta else product * alpha


def cdist(x1: Tensor, x2: Tensor, p: float = 2, compute_mode: int | None = None) -> Tensor:
    """Whatever ``compute_mode`` says: by differences, which is the exact way."""
    difference = x1.unsqueeze(-2) - x2.unsqueeze(-3)
    return torch.linalg.vector_norm(difference, p, -1)


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product = torch.einsum("bi,oij,bj->bo", input1.flatten(0, -2), weight, input2.flatten(0, -2)).reshape(
        *input1.shape[:-1], -1
    )
    return product if bias is None else product + bias


COMPOSITES = {
    _aten.bilinear.default: bilinear,
    _aten.scaled_dot_product_attention.default: scaled_dot_product_attention,
    _aten.matmul.default: matmul,
    _aten.linear.default: linear,
    _aten.mv.default: lambda self, vec: matmul(self, vec),
    _aten.dot.default: lambda self, tensor: matmul(self, tensor),
    _aten.outer.default: lambda self, vec2: self.unsqueeze(1) * vec2,
    _aten.baddbmm.default: baddbmm,
    _aten.cdist.default: cdist,
}
