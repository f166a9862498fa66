"""Convolutions, linear layers, pooling, resampling, softmax and batch norm become ``pcc::`` operators (batch norm one
``aten.batch_norm``)."""

import operator
from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch.fx import Node

from pcc.ir import expression as language
from pcc.ir.graph import insert, is_constant, replace, rewrite, shape_of
from pcc.ir.ops import (
    BATCH_NORM,
    CONV2D,
    ELEMENTWISE,
    EXPAND,
    GATHER,
    LINEAR,
    MATMUL,
    NMS,
    PAD,
    PERMUTE,
    POOL2D,
    RESIZE2D,
    SCAN,
    SCATTER,
    SOFTMAX,
    TOP_K,
)
from pcc.passes.canonical import CannotCompile, Rule, apply_rule, require_fp32
from pcc.passes.canonical.moves import become, make_concat, make_permute, make_reshape, make_slice

_aten: Any = torch.ops.aten


# ---- convolution ----


def convolution(
    node: Node,
    input: Node,
    weight: Node,
    bias: Node | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    transposed: bool = False,
    output_padding: Sequence[int] = (),
) -> None:
    """``conv2d`` in its forms, also ``padding='same'``, whose padding may be uneven."""
    rank = len(shape_of(weight)) - 2
    if transposed or any(output_padding):
        raise CannotCompile("transposed convolution that decompose did not take apart")
    if rank != 2:
        raise CannotCompile(f"{rank}-d convolution; pcc compiles those of images and rows: cut the volume into images")
    if len(shape_of(input)) != 4:
        raise CannotCompile("convolution of an input without a batch dimension that decompose did not take apart")
    if not is_constant(weight) or not (bias is None or is_constant(bias)):
        raise CannotCompile("convolution whose weight or bias is computed from the input")
    stride, dilation = _pair(stride), _pair(dilation)
    padding = _conv_padding(padding, shape_of(weight)[2:], dilation)
    args = (input, weight, bias, None, stride, padding, dilation, groups, "none")
    require_fp32(node)
    rewrite(node, CONV2D, args)
    fold_padding(node)


def _conv_padding(padding: Any, kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    if padding == "valid":
        return [0, 0, 0, 0]
    if padding == "same":  # PyTorch puts the odd one behind
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2]
    return _pair(padding) * 2


def fold_padding(node: Node, **_: Any) -> None:
    """Zeros padded around an image before a convolution, or an average that counts them, become its own padding."""
    averages = node.target is POOL2D and node.args[1] == "avg" and node.args[7] and not node.args[6]
    if node.target is not CONV2D and not averages:
        return
    position = 5 if node.target is CONV2D else 4
    source: Any = node.args[0]
    while source.target is PAD and source.args[2] == 0 and len(source.args[1]) <= 4:
        left, right, top, bottom = (*source.args[1], 0, 0)[:4]
        padding: Any = node.args[position]
        node.update_arg(position, [padding[0] + top, padding[1] + left, padding[2] + bottom, padding[3] + right])
        source = source.args[0]
    node.update_arg(0, source)


# ---- linear ----


def linear(node: Node, input: Node, weight: Node, bias: Node | None) -> None:
    _become_linear(node, input, weight, bias)


def matmul(node: Node, self: Node, other: Node | None = None, mat2: Node | None = None) -> None:
    """A product of (batches of) matrices: with a constant matrix on the right a linear layer."""
    right = other or mat2
    assert right is not None
    require_fp32(node)
    right = _spread_matrix(node, right) or right
    if is_constant(right) and len(shape_of(right)) == 2:
        _become_linear(node, self, make_permute(node, right, (1, 0)), None)
    else:
        _become_matmul(node, self, right)


def _spread_matrix(node: Node, x: Node) -> Node | None:
    """The one constant matrix that is repeated for a batch, as PyTorch does for a left side whose rows it cannot take
    as one matrix."""
    source: Any = x.args[0] if x.target is EXPAND and is_constant(x) else None
    if source is None or prod(shape_of(source)) != prod(shape_of(x)[-2:]) or shape_of(source)[-2:] != shape_of(x)[-2:]:
        return None
    return make_reshape(node, source, shape_of(x)[-2:])


def _become_matmul(node: Node, a: Node, b: Node) -> None:
    """Batches become one dimension; a left side with them and a right side without are one large matrix and another."""
    shape = shape_of(node)
    if len(shape_of(b)) == 2:
        left, right = (
            make_reshape(node, a, (1, prod(shape_of(a)[:-1]), shape_of(a)[-1])),
            make_reshape(node, b, (1, *shape_of(b))),
        )
    else:
        batches = shape[:-2]
        left, right = (_as_batch(node, x, batches) for x in (a, b))
    become(node, make_reshape(node, insert(node, MATMUL, (left, right), node, f"{node.name}_product"), shape))


def _as_batch(node: Node, x: Node, batches: Sequence[int]) -> Node:
    """(batch, rows, columns), with a batch of 1 where all are the same."""
    shape = shape_of(x)
    if prod(shape[:-2]) not in (1, prod(batches)):
        x = insert(
            node,
            EXPAND,
            (make_reshape(node, x, (1,) * (len(batches) + 2 - len(shape)) + shape), [*batches, *shape[-2:]]),
            node,
        )
    return make_reshape(node, x, (prod(shape_of(x)[:-2]), *shape[-2:]))


def addmm(node: Node, self: Node, mat1: Node, mat2: Node, beta: float, alpha: float) -> None:
    """``beta * self + alpha * mat1 @ mat2``; a linear layer where that is one, with the bias ``self``."""
    constants = is_constant(mat2) and is_constant(self)
    if (
        alpha != 1
        or beta != 1
        or not constants
        or shape_of(self)[-1:] != shape_of(mat2)[1:]
        or prod(shape_of(self)) != shape_of(mat2)[1]
    ):
        require_fp32(node)
        product = insert(node, _aten.mm.default, (mat1, mat2), node, f"{node.name}_product")
        if beta:
            rewrite(node, ELEMENTWISE, ([self, product], f"add(mul(x0,{float(beta)}),mul(x1,{float(alpha)}))"))
        else:  # whatever `self` is, be it no number
            rewrite(node, ELEMENTWISE, ([product], f"mul(x0,{float(alpha)})"))
        matmul(product, mat1, mat2=mat2)
        return
    _become_linear(node, mat1, make_permute(node, mat2, (1, 0)), make_reshape(node, self, shape_of(mat2)[1:]))


def _become_linear(node: Node, x: Node, weight: Node, bias: Node | None) -> None:
    """``linear`` over the last dimension; other than two dimensions are flattened around it."""
    if not is_constant(weight) or not (bias is None or is_constant(bias)):
        raise CannotCompile("linear layer whose weight or bias is computed from the input")
    require_fp32(node)
    features = shape_of(x)[-1]
    rows = make_reshape(node, x, (prod(shape_of(x)[:-1]), features))
    if rows is x and len(shape_of(node)) == 2:
        rewrite(node, LINEAR, (x, weight, bias, None, "none"))
    else:
        product = insert(node, LINEAR, (rows, weight, bias, None, "none"), node, f"{node.name}_rows")
        become(node, make_reshape(node, product, shape_of(node)))


# ---- pooling ----


def max_pool(
    node: Node, self: Node, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> None:
    kernel = _pair(kernel_size)
    _become_pool(node, self, "max", kernel, _pair(stride or kernel), _pair(padding), _pair(dilation), ceil_mode, True)


def average_pool(
    node: Node, self: Node, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool
) -> None:
    kernel = _pair(kernel_size)
    _become_pool(
        node, self, "avg", kernel, _pair(stride or kernel), _pair(padding), [1, 1], ceil_mode, count_include_pad
    )


def _become_pool(
    node: Node,
    x: Node,
    mode: str,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
    include: bool,
) -> None:
    if len(shape_of(x)) != 4:
        raise CannotCompile("pooling of an input without a batch dimension")
    require_fp32(node)
    rewrite(node, POOL2D, (x, mode, kernel, stride, padding * 2, dilation, ceil_mode, include))
    fold_padding(node)


def max_pool_with_indices(node: Node, self: Node, **_: Any) -> None:
    """Max pooling that also gives the positions of the maxima."""
    for user in _users_of_maxima(node, self):
        user.target, user.args, user.kwargs = _aten.max_pool2d.default, node.args, node.kwargs
        apply_rule(max_pool, user)


def adaptive_maximum(node: Node, self: Node, output_size: Sequence[int]) -> None:
    for user in _users_of_maxima(node, self):
        adaptive(user, self, output_size, "max")


def _users_of_maxima(node: Node, x: Node) -> list[Node]:
    """The getitems of a pooling's maxima; refuses the node if anybody asks for their positions."""
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in node.users):
        raise CannotCompile("the indices of max pooling are used")
    require_fp32(x)
    return list(node.users)


def adaptive_average(node: Node, self: Node, output_size: Sequence[int]) -> None:
    require_fp32(node)
    adaptive(node, self, output_size, "avg")


def adaptive(node: Node, x: Node, size: Sequence[int | None], mode: str) -> None:
    """Adaptive pooling. Along an axis whose windows are alike it is a pooling (or a repetition, where the output is
    larger); along one whose windows differ, each window is pooled by itself and the results are joined: averages and
    maxima over a rectangle are taken one axis after the other.
    """
    if len(shape_of(x)) != 4:
        raise CannotCompile("adaptive pooling of an input without a batch dimension")
    extent = shape_of(x)[2:]
    wanted = [have if want is None else want for have, want in zip(extent, size, strict=True)]
    pooled = x
    for axis, (have, want) in enumerate(zip(extent, wanted, strict=True)):
        if have % want and want % have:
            pooled = _uneven(node, pooled, axis, want, mode)
    kernel = [max(1, have // want) for have, want in zip(shape_of(pooled)[2:], wanted, strict=True)]
    if kernel != [1, 1]:
        pooled = insert(
            node, POOL2D, (pooled, mode, kernel, kernel, [0] * 4, [1, 1], False, True), node, f"{node.name}_pool"
        )
    if shape_of(pooled) != shape_of(node):
        pooled = insert(node, RESIZE2D, (pooled, wanted, "nearest", False, None), node, f"{node.name}_repeat")
    become(node, pooled)


def _uneven(node: Node, x: Node, axis: int, want: int, mode: str) -> Node:
    """Adaptive pooling along one axis (0: height) to ``want`` windows, from floor(i * have / want) up to ceil((i + 1) *
    have / want)."""
    have = shape_of(x)[2 + axis]
    pooled = []
    for i in range(want):
        begin, end = i * have // want, -(-(i + 1) * have // want)
        kernel = [end - begin, 1] if axis == 0 else [1, end - begin]
        window = make_slice(node, x, 2 + axis, begin, end)
        pooled.append(
            insert(
                node, POOL2D, (window, mode, kernel, kernel, [0] * 4, [1, 1], False, True), node, f"{node.name}_window"
            )
        )
    return make_concat(node, pooled, 2 + axis)


def reduction(node: Node, self: Node, dim: Sequence[int] | int | None = None, keepdim: bool = False) -> None:
    """``mean``, ``sum`` and ``amax`` over any dimensions: a pooling whose window is all of them. A sum of whole numbers
    has to be exact; others are means times their number, which fit fp16."""
    require_fp32(node)
    rank = len(shape_of(self))
    chosen = [dim] if isinstance(dim, int) else dim or range(rank)
    dims = sorted(d % rank for d in chosen) if rank else []
    is_sum = node.target in (_aten.sum.default, _aten.sum.dim_IntList)
    is_whole = not node.meta["val"].dtype.is_floating_point or _counts(self)
    if is_sum and not node.meta["val"].dtype.is_floating_point and self.meta["val"].dtype.is_floating_point:
        self = insert(node, ELEMENTWISE, ([self], "trunc(x0)"), node, f"{node.name}_whole")
    mode = "max" if node.target is _aten.amax.default else "sum" if is_sum and is_whole else "avg"
    pooled, count = _pool_over(node, self, dims, mode)
    if is_sum and not is_whole:
        pooled = insert(node, ELEMENTWISE, ([pooled], f"mul(x0,{count})"), node, f"{node.name}_sum")
    shape = [1 if d in dims else size for d, size in enumerate(shape_of(self)) if keepdim or d not in dims]
    become(node, make_reshape(node, pooled, shape))


def _counts(x: Node) -> bool:
    """Whether a value is whole numbers or truth, also as fp32."""
    is_truth = x.target is ELEMENTWISE and language.is_truth(language.parse(str(x.args[1])))
    return is_truth or not x.meta["val"].dtype.is_floating_point


def _pool_over(node: Node, x: Node, dims: list[int], mode: str) -> tuple[Node, int]:
    """The pooled value, its reduced dimensions of size 1 somewhere, and how many elements were reduced to one."""
    if x.target is PERMUTE:  # what was permuted is read, if the dimensions that stay keep their order
        order: Any = x.args[1]
        if (kept := [order[d] for d in range(len(order)) if d not in dims]) == sorted(kept):
            return _pool_over(node, x.args[0], sorted(order[d] for d in dims), mode)  # type: ignore[arg-type]
    shape = shape_of(x)
    count = prod(shape[d] for d in dims)
    neighbours = dims == list(range(dims[0], dims[-1] + 1)) if dims else False
    inner = prod(shape[dims[-1] + 1 :]) if neighbours else 1
    if len(shape) == 4 and dims == [2, 3]:
        image, kernel = x, list(shape[2:])
    elif neighbours and inner > 1:  # down the columns of planes: nothing has to move
        image, kernel = make_reshape(node, x, (1, prod(shape[: dims[0]]), count, inner)), [count, 1]
    else:
        kept = [d for d in range(len(shape)) if d not in dims]
        ordered = make_permute(node, x, [*kept, *dims])
        first = shape[kept[0]] if kept else 1
        image, kernel = make_reshape(node, ordered, (first, prod(shape[d] for d in kept[1:]), 1, count)), [1, count]
    return insert(
        node, POOL2D, (image, mode, kernel, kernel, [0] * 4, [1, 1], False, True), node, f"{node.name}_pool"
    ), count


# ---- resampling, softmax, batch norm ----


def resize_by_factors(
    node: Node, input: Node, output_size: Any, scale_factors: Sequence[float] | None, align_corners: bool = False
) -> None:
    """Interpolation as ``F.interpolate`` calls it: to a size, or by factors that also place the samples."""
    _become_resize(
        node, input, None if output_size is not None or scale_factors is None else list(scale_factors), align_corners
    )


def resize(
    node: Node,
    self: Node,
    output_size: Sequence[int],
    align_corners: bool = False,
    scales_h: float | None = None,
    scales_w: float | None = None,
) -> None:
    """Interpolation to a size; ``scales`` place the samples where the size was rounded."""
    if (scales_h is None) != (scales_w is None):
        raise CannotCompile("interpolation with a factor for one axis alone")
    if tuple(output_size) != shape_of(node)[2:]:
        raise AssertionError(f"{node.name}: output_size {output_size} of {shape_of(node)}")
    _become_resize(node, self, None if scales_h is None or scales_w is None else [scales_h, scales_w], align_corners)


def _become_resize(node: Node, x: Node, scales: list[float] | None, align_corners: bool) -> None:
    require_fp32(node)
    mode = "nearest" if "nearest" in str(node.target) else "bilinear"
    size = list(shape_of(node)[2:])
    if tuple(size) == shape_of(x)[2:] and scales in (None, [1.0, 1.0]):
        replace(node, x)
    else:
        rewrite(node, RESIZE2D, (x, size, mode, align_corners, scales))


def softmax(node: Node, self: Node, dim: int, half_to_float: bool = False) -> None:
    require_fp32(node)
    rank = len(shape_of(node))
    if rank == 0:
        raise CannotCompile("softmax of a single number")
    if half_to_float:
        raise CannotCompile("softmax of half precision")
    rewrite(node, SOFTMAX, (self, dim % rank, "log_softmax" in str(node.target)))


def batch_norm(
    node: Node,
    input: Node,
    weight: Node | None,
    bias: Node | None,
    running_mean: Node | None,
    running_var: Node | None,
    momentum: float,
    eps: float,
    training: bool = False,
) -> None:
    """``batch_norm`` with fixed statistics, as one node with one result."""
    require_fp32(node)
    if training:
        raise CannotCompile("batch norm that computes the statistics of its input: call eval() on the model")
    if running_mean is None or running_var is None:
        raise CannotCompile("batch norm without running statistics")
    args = (input, weight, bias, running_mean, running_var, False, momentum, eps, False)
    if node.target is BATCH_NORM:
        rewrite(node, BATCH_NORM, args)
        return
    if any(user.args[1] != 0 for user in node.users):
        raise CannotCompile("the saved statistics of batch norm are used")
    for user in list(node.users):
        rewrite(user, BATCH_NORM, args)


def _pair(value: Any) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * 2 if len(values) == 1 else values


RULES: dict[Any, Rule] = {
    **dict.fromkeys((_aten.conv2d.default, _aten.conv2d.padding, _aten.convolution.default), convolution),
    _aten.linear.default: linear,
    **dict.fromkeys((_aten.mm.default, _aten.bmm.default, _aten.matmul.default), matmul),
    _aten.addmm.default: addmm,
    _aten.max_pool2d.default: max_pool,
    _aten.avg_pool2d.default: average_pool,
    _aten.max_pool2d_with_indices.default: max_pool_with_indices,
    _aten.adaptive_max_pool2d.default: adaptive_maximum,
    **dict.fromkeys((_aten.adaptive_avg_pool2d.default, _aten._adaptive_avg_pool2d.default), adaptive_average),
    **dict.fromkeys(
        (_aten.mean.default, _aten.mean.dim, _aten.sum.default, _aten.sum.dim_IntList, _aten.amax.default), reduction
    ),
    **dict.fromkeys((_aten.upsample_nearest2d.vec, _aten.upsample_bilinear2d.vec), resize_by_factors),
    **dict.fromkeys((_aten.upsample_nearest2d.default, _aten.upsample_bilinear2d.default), resize),
    **dict.fromkeys(
        (_aten.softmax.int, _aten._softmax.default, _aten.log_softmax.int, _aten._log_softmax.default), softmax
    ),
    **dict.fromkeys(
        (BATCH_NORM, _aten._native_batch_norm_legit_no_training.default, _aten.native_batch_norm.default), batch_norm
    ),
    **dict.fromkeys((CONV2D, POOL2D), fold_padding),
    **dict.fromkeys((MATMUL, GATHER, TOP_K, SCAN, SCATTER, NMS), require_fp32),
}
