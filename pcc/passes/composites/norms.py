"""Normalisation by the statistics of the input, and the statistics. Means come first and deviations from them second,
so that nothing cancels."""

from collections.abc import Sequence
from math import inf, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_aten: Any = torch.ops.aten


def normalized(x: Tensor, dims: list[int], eps: float) -> Tensor:
    """Mean 0 and (biased) variance 1 over some dimensions."""
    centred = x - x.mean(dims, keepdim=True)
    return centred * torch.rsqrt((centred * centred).mean(dims, keepdim=True) + eps)


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    return _affine(normalized(input, _last(len(normalized_shape)), eps), weight, bias)


def native_layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    dims = _last(len(normalized_shape))
    mean = input.mean(dims, keepdim=True)
    scale = torch.rsqrt((input - mean).square().mean(dims, keepdim=True) + eps)
    return _affine((input - mean) * scale, weight, bias), mean, scale


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    dims = _last(len(normalized_shape))
    tiny = torch.finfo(input.dtype).eps if eps is None else eps
    return _affine(input * torch.rsqrt((input * input).mean(dims, keepdim=True) + tiny), weight, None)


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """The statistics are of groups; the image is passed over once more, with numbers for each channel."""
    batch, channels = input.shape[:2]
    groups = input.reshape(batch, num_groups, -1)
    mean = groups.mean(2, keepdim=True)
    centred = groups - mean
    scale = torch.rsqrt((centred * centred).mean(2, keepdim=True) + eps)
    per_channel = (batch, channels, *(1,) * (input.dim() - 2))
    mean, scale = (value.expand(-1, -1, channels // num_groups).reshape(per_channel) for value in (mean, scale))
    return _affine(
        (input - mean) * scale,
        *(value if value is None else value.reshape(per_channel[1:]) for value in (weight, bias)),
    )


def native_group_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, N: int, C: int, HxW: int, group: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    groups = input.reshape(N, group, C // group * HxW)
    mean = groups.mean(2, keepdim=True)
    scale = torch.rsqrt((groups - mean).square().mean(2, keepdim=True) + eps)
    return group_norm(input, group, weight, bias, eps), mean.squeeze(2), scale.squeeze(2)


def instance_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """The statistics of each channel of each image, or running ones; ``momentum`` is for training."""
    if use_input_stats:
        return group_norm(input, input.shape[1], weight, bias, eps)
    return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)


def batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    *,
    computed: frozenset[str] = frozenset(),
) -> Tensor:
    """Where a statistic or a parameter is computed; or without running statistics, when those of the batch are taken.
    ``momentum`` is for training."""
    shape = (-1, *(1,) * (input.dim() - 2))
    weight, bias = (value if value is None else value.reshape(shape) for value in (weight, bias))
    if running_mean is None or running_var is None:
        return _affine(normalized(input, [0, *range(2, input.dim())], eps), weight, bias)
    if training or not computed - {"input"}:
        return NotImplemented
    mean, var = running_mean.reshape(shape), running_var.reshape(shape)
    return _affine((input - mean) * torch.rsqrt(var + eps), weight, bias)


def batch_norm_of_batch(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, training: bool, momentum: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    dims = [0, *range(2, input.dim())]
    mean = input.mean(dims)
    scale = torch.rsqrt((input - mean.reshape(-1, *(1,) * (input.dim() - 2))).square().mean(dims) + eps)
    return batch_norm(input, weight, bias, None, None, training, momentum, eps), mean, scale


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _last(count: int) -> list[int]:
    return list(range(-count, 0))


# ---- statistics ----


def variance(
    self: Tensor, dim: Any = None, correction: float | None = 1, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    """(variance, mean); ``correction`` is taken from the number of elements."""
    dims = list(range(self.dim())) if dim is None or dim == [] else [dim] if isinstance(dim, int) else list(dim)
    mean = self.mean(dims, keepdim=True)
    centred = self - mean
    count = prod(self.shape[d] for d in dims)
    mean_square = (centred * centred).mean(dims, keepdim=keepdim)
    used = 1 if correction is None else correction
    factor = count / (count - used) if count > used else inf
    return mean_square * factor if used else mean_square, mean if keepdim else mean.reshape(mean_square.shape)


def _of_variance(result: Any) -> dict[str, Any]:
    """The three overloads of a statistic made of `variance`."""

    def plain(self: Tensor, unbiased: bool = True) -> Any:
        return result(*variance(self, None, int(unbiased)))

    def dim(self: Tensor, dim: Any, unbiased: bool = True, keepdim: bool = False) -> Any:
        return result(*variance(self, dim, int(unbiased), keepdim))

    def correction(self: Tensor, dim: Any = None, correction: float | None = None, keepdim: bool = False) -> Any:
        return result(*variance(self, dim, correction, keepdim))

    return {"default": plain, "dim": dim, "correction": correction}


_STATISTICS = {
    _aten.var: lambda var, mean: var,
    _aten.std: lambda var, mean: var.sqrt(),
    _aten.var_mean: lambda var, mean: (var, mean),
    _aten.std_mean: lambda var, mean: (var.sqrt(), mean),
}


def vector_norm(self: Tensor, ord: float = 2, dim: Any = None, keepdim: bool = False) -> Tensor:
    dims = list(range(self.dim())) if dim is None else dim
    if ord == 2:
        return (self * self).sum(dims, keepdim).sqrt()
    if abs(ord) == inf:
        return self.abs().amax(dims, keepdim) if ord > 0 else self.abs().amin(dims, keepdim)
    if ord == 0:
        return (self != 0).to(self.dtype).sum(dims, keepdim)
    size = self.abs()
    return size.sum(dims, keepdim) if ord == 1 else size.pow(ord).sum(dims, keepdim).pow(1 / ord)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The product of the normalised vectors; their lengths are at least ``eps``."""
    first, second = (x / vector_norm(x, 2, [dim], True).clamp_min(eps) for x in torch.broadcast_tensors(x1, x2))
    return (first * second).sum(dim)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    return vector_norm(x1 - x2 + eps, p, [-1], keepdim)


def norm(self: Tensor, p: float | None = 2, dim: Any = None, keepdim: bool = False) -> Tensor:
    return vector_norm(self, 2 if p is None else p, dim, keepdim)


COMPOSITES = {
    _aten.pairwise_distance.default: pairwise_distance,
    **dict.fromkeys((_aten.norm.Scalar, _aten.norm.ScalarOpt_dim), norm),
    _aten.cosine_similarity.default: cosine_similarity,
    _aten.layer_norm.default: layer_norm,
    _aten.native_layer_norm.default: native_layer_norm,
    _aten.rms_norm.default: rms_norm,
    _aten.group_norm.default: group_norm,
    _aten.native_group_norm.default: native_group_norm,
    _aten.instance_norm.default: instance_norm,
    _aten.batch_norm.default: batch_norm,
    _aten._native_batch_norm_legit.no_stats: batch_norm_of_batch,
    **{
        getattr(packet, name): function
        for packet, result in _STATISTICS.items()
        for name, function in _of_variance(result).items()
    },
    _aten.linalg_vector_norm.default: vector_norm,
}
