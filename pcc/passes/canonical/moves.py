"""Data movement: everything becomes ``reshape``, ``permute``, ``slice``, ``expand``, ``constant_pad_nd`` or ``pcc::concat``."""

import operator
from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch.fx import Node

from pcc.ir.graph import arguments, insert, replace, rewrite, shape_of
from pcc.ir.ops import CONCAT, EXPAND, PAD, PERMUTE, RESHAPE, SLICE
from pcc.passes.canonical import CannotCompile, dtype_name

_aten: Any = torch.ops.aten


# ---- makers: canonical nodes in front of another ----


def make_reshape(before: Node, x: Node, shape: Sequence[int]) -> Node:
    """``x`` in another shape; nothing new where ``x``, or what it was reshaped from, has it."""
    if shape_of(x) == tuple(shape):
        return x
    source = _unreshaped(x)
    return source if shape_of(source) == tuple(shape) else insert(before, RESHAPE, (source, list(shape)), before, f"{before.name}_reshape")


def make_permute(before: Node, x: Node, order: Sequence[int]) -> Node:
    """``x`` with dimension ``order[i]`` as its i-th."""
    source, order = _unpermuted(x, order)
    if order == list(range(len(order))):
        return source
    if _keeps_memory_order(source, order):
        return make_reshape(before, source, [shape_of(source)[i] for i in order])
    return insert(before, PERMUTE, (source, order), before, f"{before.name}_permute")


def make_slice(before: Node, x: Node, dim: int, start: int, end: int, step: int = 1) -> Node:
    if (start, end, step) == (0, shape_of(x)[dim], 1):
        return x
    return insert(before, SLICE, (x, dim, start, end, step), before, f"{before.name}_slice")


def make_concat(before: Node, xs: Sequence[Node], dim: int) -> Node:
    return xs[0] if len(xs) == 1 else insert(before, CONCAT, (list(xs), dim), before, f"{before.name}_concat")


def become(node: Node, made: Node) -> None:
    """The node is replaced by one of the makers' results, which takes its name if it was made for it."""
    if made.op == "call_function" and made.next is node and not made.users and made.target is not operator.getitem:
        rewrite(node, made.target, made.args)
        node.graph.erase_node(made)
    else:
        replace(node, made)


def _unreshaped(x: Node) -> Node:
    while x.target is RESHAPE:
        x = x.args[0]  # type: ignore[assignment]
    return x


def _unpermuted(x: Node, order: Sequence[int]) -> tuple[Node, list[int]]:
    while x.target is PERMUTE:
        inner: Any = x.args[1]
        x, order = x.args[0], [inner[i] for i in order]  # type: ignore[assignment]
    return x, list(order)


def _keeps_memory_order(x: Node, order: Sequence[int]) -> bool:
    """Whether a permutation moves dimensions of size 1 only."""
    moving = [i for i in order if shape_of(x)[i] != 1]
    return moving == sorted(moving)


# ---- rules ----


def identity(node: Node) -> None:
    """Copies, detaches and conversions to the type a value already has."""
    x: Any = node.args[0]
    if node.meta["val"].dtype != x.meta["val"].dtype:
        raise CannotCompile(f"converts {dtype_name(x.meta['val'])} to {dtype_name(node.meta['val'])}")
    replace(node, x)


def dropout(node: Node) -> None:
    if arguments(node).get("train"):
        raise CannotCompile("dropout in training mode")
    identity(node)


def reshape(node: Node) -> None:
    become(node, make_reshape(node, node.args[0], shape_of(node)))  # type: ignore[arg-type]


def permute(node: Node) -> None:
    rank = len(shape_of(node))
    become(node, make_permute(node, node.args[0], [d % rank for d in node.args[1]]))  # type: ignore[arg-type, union-attr]


def transpose(node: Node) -> None:
    """``transpose(x, a, b)``, ``x.t()``, ``x.mT``."""
    bound, rank = arguments(node), len(shape_of(node))
    order = list(range(rank))
    if rank > 1:
        first, second = bound.get("dim0", -2) % rank, bound.get("dim1", -1) % rank
        order[first], order[second] = second, first
    become(node, make_permute(node, bound["self"], order))


def slice_(node: Node) -> None:
    bound = arguments(node)
    x = bound["self"]
    dim = bound["dim"] % len(shape_of(x))
    size = shape_of(x)[dim]
    start, end, step = slice(bound["start"], bound["end"], bound["step"]).indices(size)
    become(node, make_slice(node, x, dim, start, max(start, end), step))


def select(node: Node) -> None:
    bound = arguments(node)
    x = bound["self"]
    dim = bound["dim"] % len(shape_of(x))
    index = bound["index"] % shape_of(x)[dim]
    become(node, make_reshape(node, make_slice(node, x, dim, index, index + 1), shape_of(node)))


def split(node: Node) -> None:
    """``split`` in equal or listed parts: its getitems become slices."""
    bound = arguments(node)
    x = bound["self"]
    dim = bound["dim"] % len(shape_of(x))
    sizes = [part.shape[dim] for part in node.meta["val"]]
    for user in list(node.users):
        index: Any = user.args[1]
        start = sum(sizes[: index % len(sizes)])
        become(user, make_slice(user, x, dim, start, start + sizes[index]))


def unbind(node: Node) -> None:
    bound = arguments(node)
    x = bound["self"]
    dim = bound["dim"] % len(shape_of(x))
    for user in list(node.users):
        index: Any = user.args[1]
        become(user, make_reshape(user, make_slice(user, x, dim, index, index + 1), shape_of(user)))


def expand(node: Node) -> None:
    x: Any = node.args[0]
    shape = shape_of(node)
    if shape == shape_of(x):
        replace(node, x)
    else:
        x = make_reshape(node, x, (1,) * (len(shape) - len(shape_of(x))) + shape_of(x))
        rewrite(node, EXPAND, (x, list(shape)))


def repeat(node: Node) -> None:
    """Repetition: of dimensions of size 1 an expand, of others a concat of copies."""
    bound = arguments(node)
    x, repeats = bound["self"], bound["repeats"]
    made = make_reshape(node, x, (1,) * (len(repeats) - len(shape_of(x))) + shape_of(x))
    for dim, count in enumerate(repeats):
        if count == 0:
            raise CannotCompile("repeats nothing: the result is empty")
        if shape_of(made)[dim] > 1:
            made = make_concat(node, [made] * count, dim)
    if shape_of(made) != shape_of(node):
        made = insert(node, EXPAND, (made, list(shape_of(node))), node)
    become(node, made)


def roll(node: Node) -> None:
    """Each rolled dimension: its end, then its beginning."""
    bound = arguments(node)
    x, dims = bound["self"], bound["dims"]
    if not dims:
        raise CannotCompile("roll of the flattened tensor")
    for dim, shift in zip(dims, bound["shifts"], strict=True):
        size = shape_of(x)[dim]
        if shift % size:
            dim, cut = dim % len(shape_of(x)), size - shift % size
            x = make_concat(node, [make_slice(node, x, dim, cut, size), make_slice(node, x, dim, 0, cut)], dim)
    become(node, x)


def concat(node: Node) -> None:
    bound = arguments(node)
    # torch.cat lets empty vectors pass, for old programs' sake.
    xs = [x for x in bound["xs" if node.target is CONCAT else "tensors"] if prod(shape_of(x))]
    become(node, make_concat(node, xs, bound["dim"] % len(shape_of(node))))


def stack(node: Node) -> None:
    bound = arguments(node)
    shape = shape_of(node)
    dim = bound["dim"] % len(shape)
    part = (*shape[:dim], 1, *shape[dim + 1 :])
    become(node, make_concat(node, [make_reshape(node, x, part) for x in bound["tensors"]], dim))


def pad(node: Node) -> None:
    """``aten.pad`` and ``constant_pad_nd``: cropping (negative padding) becomes slices; then only what is really added is padded."""
    bound = arguments(node)
    x, amounts, mode, value = bound["self"], list(bound["pad"]), bound.get("mode", "constant"), bound.get("value") or 0.0
    if mode != "constant":
        raise CannotCompile(f"padding mode '{mode}': pcc pads with constants")
    rank = len(shape_of(x))
    for position in range(0, len(amounts), 2):
        dim, size = rank - 1 - position // 2, shape_of(x)[rank - 1 - position // 2]
        x = make_slice(node, x, dim, max(0, -amounts[position]), size - max(0, -amounts[position + 1]))
    amounts = [max(0, amount) for amount in amounts]
    while amounts and not any(amounts[-2:]):
        amounts = amounts[:-2]
    if amounts:
        rewrite(node, PAD, (x, amounts, float(value)))
    else:
        become(node, x)


RULES: dict[Any, Any] = {
    **dict.fromkeys((_aten.clone.default, _aten.contiguous.default, _aten.detach.default, _aten.alias.default, _aten.lift_fresh_copy.default), identity),
    **dict.fromkeys((_aten._to_copy.default, _aten.to.dtype, _aten.to.dtype_layout, _aten.to.device, _aten.type_as.default, _aten.positive.default), identity),
    **dict.fromkeys((_aten.dropout.default, _aten.feature_dropout.default, _aten.alpha_dropout.default, _aten.feature_alpha_dropout.default), dropout),
    **dict.fromkeys((_aten.view.default, _aten._unsafe_view.default, RESHAPE, _aten.flatten.using_ints, _aten.unflatten.int), reshape),
    **dict.fromkeys((_aten.unsqueeze.default, _aten.squeeze.default, _aten.squeeze.dim, _aten.squeeze.dims, _aten.atleast_2d.default), reshape),
    PERMUTE: permute,
    **dict.fromkeys((_aten.transpose.int, _aten.t.default, _aten.mT.default), transpose),
    SLICE: slice_,
    _aten.select.int: select,
    **dict.fromkeys((_aten.split.Tensor, _aten.split_with_sizes.default), split),
    _aten.unbind.int: unbind,
    EXPAND: expand,
    _aten.repeat.default: repeat,
    _aten.roll.default: roll,
    **dict.fromkeys((_aten.cat.default, _aten.concat.default, CONCAT), concat),
    _aten.stack.default: stack,
    **dict.fromkeys((_aten.pad.default, PAD), pad),
}
