"""Convolutions, linear layers, pooling, resampling, softmax and batch norm become ``pcc::`` operators (batch norm one ``aten.batch_norm``)."""

import operator
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch.fx import Node

from pcc.ir.graph import arguments, insert, is_constant, replace, rewrite, shape_of
from pcc.ir.ops import BATCH_NORM, CONV2D, ELEMENTWISE, LINEAR, PAD, POOL2D, RESIZE2D, SOFTMAX
from pcc.passes.canonical import CannotCompile, require_fp32
from pcc.passes.canonical.moves import become, make_concat, make_permute, make_reshape, make_slice

_aten: Any = torch.ops.aten


# ---- convolution ----


def convolution(node: Node) -> None:
    """``conv2d`` in its forms, also ``padding='same'``, whose padding may be uneven."""
    bound = arguments(node)
    x, weight = bound["input"], bound["weight"]
    rank = len(shape_of(weight)) - 2
    if bound.get("transposed"):
        raise CannotCompile("transposed convolution")
    if rank != 2:
        raise CannotCompile(f"{rank}-d convolution; pcc compiles 2-d ones")
    if len(shape_of(x)) != 4:
        raise CannotCompile("convolution of an input without a batch dimension")
    if not is_constant(weight) or not (bound["bias"] is None or is_constant(bound["bias"])):
        raise CannotCompile("convolution whose weight or bias is computed from the input")
    stride, dilation = _pair(bound["stride"]), _pair(bound["dilation"])
    padding = _conv_padding(bound["padding"], shape_of(weight)[2:], dilation)
    args = (x, weight, bound["bias"], None, stride, padding, dilation, bound["groups"], "none")
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


def fold_padding(node: Node) -> None:
    """Zeros padded around an image before a convolution, or an average that counts them, become its own padding."""
    averages = node.target is POOL2D and node.args[1] == "avg" and node.args[7] and not node.args[6]
    if node.target is not CONV2D and not averages:
        return
    position = 5 if node.target is CONV2D else 4
    source: Any = node.args[0]
    while source.target is PAD and source.args[2] == 0 and len(source.args[1]) <= 4:
        left, right, top, bottom = (*source.args[1], 0, 0)[:4]
        own: Any = node.args[position]
        node.update_arg(position, [own[0] + top, own[1] + left, own[2] + bottom, own[3] + right])
        source = source.args[0]
    node.update_arg(0, source)


# ---- linear ----


def linear(node: Node) -> None:
    bound = arguments(node)
    _become_linear(node, bound["input"], bound["weight"], bound["bias"])


def matmul(node: Node) -> None:
    """A product with a constant matrix on the right."""
    x, weight = node.all_input_nodes if len(node.all_input_nodes) == 2 else node.all_input_nodes * 2
    if not is_constant(weight) or len(shape_of(weight)) != 2:
        raise CannotCompile("matrix product whose right side is not a constant matrix")
    _become_linear(node, x, make_permute(node, weight, (1, 0)), None)


def addmm(node: Node) -> None:
    bound = arguments(node)
    bias, weight = bound["self"], bound["mat2"]
    if bound["alpha"] != 1 or bound["beta"] != 1 or not is_constant(weight) or not is_constant(bias) or shape_of(bias)[-1:] != shape_of(weight)[1:]:
        raise CannotCompile("addmm that is not a linear layer with constant weight and bias")
    if prod(shape_of(bias)) != shape_of(weight)[1]:
        raise CannotCompile("addmm whose bias differs from row to row")
    _become_linear(node, bound["mat1"], make_permute(node, weight, (1, 0)), make_reshape(node, bias, shape_of(weight)[1:]))


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


def pool(node: Node) -> None:
    """``max_pool2d``, ``avg_pool2d``."""
    bound = arguments(node)
    x = bound["self"]
    if len(shape_of(x)) != 4:
        raise CannotCompile("pooling of an input without a batch dimension")
    kernel = _pair(bound["kernel_size"])
    mode = "avg" if "count_include_pad" in bound else "max"
    divisor = bound.get("divisor_override")
    if divisor not in (None, prod(kernel)) or (divisor and (any(_pair(bound["padding"])) or bound["ceil_mode"])):
        raise CannotCompile(f"average pooling with divisor_override={divisor}")
    stride, padding = _pair(bound["stride"] or kernel), _pair(bound["padding"]) * 2
    args = (x, mode, kernel, stride, padding, _pair(bound.get("dilation", 1)), bound["ceil_mode"], bound.get("count_include_pad", True))
    require_fp32(node)
    rewrite(node, POOL2D, args)
    fold_padding(node)


def with_indices(node: Node) -> None:
    """Poolings that also give the positions of the maxima: only if nobody asks for them."""
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in node.users):
        raise CannotCompile("the indices of max pooling are used")
    require_fp32(node.all_input_nodes[0])
    for user in list(node.users):
        if node.target is _aten.adaptive_max_pool2d.default:
            bound = arguments(node)
            adaptive(user, bound["self"], bound["output_size"], "max")
        else:
            user.target, user.args = _aten.max_pool2d.default, node.args
            pool(user)


def adaptive_average(node: Node) -> None:
    bound = arguments(node)
    require_fp32(node)
    adaptive(node, bound["self"], bound["output_size"], "avg")


def adaptive(node: Node, x: Node, size: Sequence[int], mode: str) -> None:
    """Adaptive pooling. Along an axis whose windows are alike it is a pooling (or a repetition, where the output is larger); along one whose windows
    differ, each window is pooled by itself and the results are joined: averages and maxima over a rectangle are taken one axis after the other.
    """
    if len(shape_of(x)) != 4:
        raise CannotCompile("adaptive pooling of an input without a batch dimension")
    extent = shape_of(x)[2:]
    size = [extent[axis] if wanted is None else wanted for axis, wanted in enumerate(size)]
    made = x
    for axis, (have, want) in enumerate(zip(extent, size, strict=True)):
        if have % want and want % have:
            made = _uneven(node, made, axis, want, mode)
    kernel = [max(1, have // want) for have, want in zip(shape_of(made)[2:], size, strict=True)]
    if kernel != [1, 1]:
        made = insert(node, POOL2D, (made, mode, kernel, kernel, [0] * 4, [1, 1], False, True), node, f"{node.name}_pool")
    if shape_of(made) != shape_of(node):
        made = insert(node, RESIZE2D, (made, list(size), "nearest", False, None), node, f"{node.name}_repeat")
    become(node, made)


def _uneven(node: Node, x: Node, axis: int, want: int, mode: str) -> Node:
    """Adaptive pooling along one axis (0: height) to ``want`` windows, from floor(i * have / want) up to ceil((i + 1) * have / want)."""
    have = shape_of(x)[2 + axis]
    pooled = []
    for i in range(want):
        begin, end = i * have // want, -(-(i + 1) * have // want)
        kernel = [end - begin, 1] if axis == 0 else [1, end - begin]
        window = make_slice(node, x, 2 + axis, begin, end)
        pooled.append(insert(node, POOL2D, (window, mode, kernel, kernel, [0] * 4, [1, 1], False, True), node, f"{node.name}_window"))
    return make_concat(node, pooled, 2 + axis)


def reduction(node: Node) -> None:
    """``mean``, ``sum`` and ``amax`` over any dimensions: a pooling whose window is all of them."""
    bound = arguments(node)
    x = bound["self"]
    require_fp32(node)
    shape = shape_of(x)
    chosen = bound.get("dim") or range(len(shape))
    dims = sorted(d % len(shape) for d in chosen)
    mode = "max" if node.target is _aten.amax.default else "avg"
    made, count = _pool_over(node, x, dims, mode)
    if node.target in (_aten.sum.default, _aten.sum.dim_IntList):
        made = insert(node, ELEMENTWISE, ([made], f"mul(x0,{count})"), node, f"{node.name}_sum")
    become(node, make_reshape(node, made, shape_of(node)))


def _pool_over(node: Node, x: Node, dims: list[int], mode: str) -> tuple[Node, int]:
    """The pooled value, its reduced dimensions of size 1 somewhere, and how many elements were reduced to one."""
    shape = shape_of(x)
    count = prod(shape[d] for d in dims)
    if len(shape) == 4 and dims == [2, 3]:
        image, kernel = x, list(shape[2:])
    else:
        kept = [d for d in range(len(shape)) if d not in dims]
        ordered = make_permute(node, x, [*kept, *dims])
        first = shape[kept[0]] if kept else 1
        image, kernel = make_reshape(node, ordered, (first, prod(shape[d] for d in kept[1:]), 1, count)), [1, count]
    return insert(node, POOL2D, (image, mode, kernel, kernel, [0] * 4, [1, 1], False, True), node, f"{node.name}_pool"), count


# ---- resampling, softmax, batch norm ----


def resize(node: Node) -> None:
    """Nearest and bilinear interpolation, by size or by factors."""
    bound = arguments(node)
    x = node.all_input_nodes[0]
    require_fp32(node)
    mode = "nearest" if "nearest" in str(node.target) else "bilinear"
    given = bound.get("scale_factors") or [bound.get("scales_h"), bound.get("scales_w")]
    scales = None if None in given else [float(scale) for scale in given if scale is not None]
    size = list(shape_of(node)[2:])
    if tuple(size) == shape_of(x)[2:] and scales in (None, [1.0, 1.0]):
        replace(node, x)
    else:
        rewrite(node, RESIZE2D, (x, size, mode, bound.get("align_corners", False), scales))


def softmax(node: Node) -> None:
    bound = arguments(node)
    require_fp32(node)
    rank = len(shape_of(node))
    if rank == 0:
        raise CannotCompile("softmax of a single number")
    rewrite(node, SOFTMAX, (bound["self"], bound["dim"] % rank, "log_softmax" in str(node.target)))


def batch_norm(node: Node) -> None:
    """``batch_norm`` with fixed statistics, as one node with one result."""
    bound = arguments(node)
    require_fp32(node)
    if bound.get("training"):
        raise CannotCompile("batch norm that computes the statistics of its input: call eval() on the model")
    if bound["running_mean"] is None:
        raise CannotCompile("batch norm without running statistics")
    args = (bound["input"], bound["weight"], bound["bias"], bound["running_mean"], bound["running_var"], False, bound["momentum"], bound["eps"], False)
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


def never(reason: str) -> Callable[[Node], None]:
    """The rule of an operator that pcc knows and cannot compile."""

    def rule(node: Node) -> None:
        raise CannotCompile(reason)

    return rule


RULES: dict[Any, Any] = {
    **dict.fromkeys((_aten.conv2d.default, _aten.conv2d.padding, _aten.convolution.default), convolution),
    **dict.fromkeys((_aten.conv1d.default, _aten.conv1d.padding), never("1-d convolution; pcc compiles 2-d ones")),
    **dict.fromkeys((_aten.conv3d.default, _aten.conv3d.padding), never("3-d convolution; pcc compiles 2-d ones")),
    **dict.fromkeys((_aten.conv_transpose2d.input, _aten.conv_transpose1d.default), never("transposed convolution")),
    _aten.linear.default: linear,
    **dict.fromkeys((_aten.mm.default, _aten.matmul.default), matmul),
    _aten.addmm.default: addmm,
    **dict.fromkeys((_aten.max_pool2d.default, _aten.avg_pool2d.default), pool),
    **dict.fromkeys((_aten.max_pool2d_with_indices.default, _aten.adaptive_max_pool2d.default), with_indices),
    **dict.fromkeys((_aten.adaptive_avg_pool2d.default, _aten._adaptive_avg_pool2d.default), adaptive_average),
    **dict.fromkeys((_aten.mean.default, _aten.mean.dim, _aten.sum.default, _aten.sum.dim_IntList, _aten.amax.default), reduction),
    **dict.fromkeys((_aten.upsample_nearest2d.vec, _aten.upsample_nearest2d.default), resize),
    **dict.fromkeys((_aten.upsample_bilinear2d.vec, _aten.upsample_bilinear2d.default), resize),
    **dict.fromkeys((_aten.upsample_bicubic2d.vec, _aten.upsample_bicubic2d.default), never("bicubic interpolation; pcc has nearest and bilinear")),
    **dict.fromkeys((_aten.softmax.int, _aten._softmax.default, _aten.log_softmax.int, _aten._log_softmax.default), softmax),
    **dict.fromkeys((BATCH_NORM, _aten._native_batch_norm_legit_no_training.default, _aten.native_batch_norm.default), batch_norm),
    **dict.fromkeys((CONV2D, POOL2D), fold_padding),
}
