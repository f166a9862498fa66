"""Data movement: everything becomes ``reshape``, ``permute``, ``slice``, ``expand``, ``constant_pad_nd`` or
``pcc::concat``."""

import operator
from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch.fx import Node

from pcc.dtype import full_name
from pcc.ir.graph import add_constant, insert, replace, rewrite, shape_of
from pcc.ir.ops import CONCAT, EXPAND, PAD, PERMUTE, RESHAPE, SLICE
from pcc.passes.canonical import WHOLE, CannotCompile, Rule

_aten: Any = torch.ops.aten


# ---- makers: canonical nodes in front of another ----


def make_reshape(before: Node, x: Node, shape: Sequence[int]) -> Node:
    """``x`` in another shape; nothing new where ``x``, or what it was reshaped from, has it."""
    if shape_of(x) == tuple(shape):
        return x
    source = _unreshaped(x)
    return (
        source
        if shape_of(source) == tuple(shape)
        else insert(before, RESHAPE, (source, list(shape)), before, f"{before.name}_reshape")
    )


def make_permute(before: Node, x: Node, order: Sequence[int]) -> Node:
    """``x`` with dimension ``order[i]`` as its i-th."""
    source, order = _unpermuted(x, order)
    if order == list(range(len(order))):
        return source
    if keeps_memory_order(source, order):
        return make_reshape(before, source, [shape_of(source)[i] for i in order])
    return insert(before, PERMUTE, (source, order), before, f"{before.name}_permute")


def make_slice(before: Node, x: Node, dim: int, start: int, end: int, step: int = 1) -> Node:
    if (start, end, step) == (0, shape_of(x)[dim], 1):
        return x
    return insert(before, SLICE, (x, dim, start, end, step), before, f"{before.name}_slice")


def make_concat(before: Node, xs: Sequence[Node], dim: int) -> Node:
    return xs[0] if len(xs) == 1 else insert(before, CONCAT, (list(xs), dim), before, f"{before.name}_concat")


def become(node: Node, new: Node) -> None:
    """The node is replaced by one of the makers' results, which takes its name if it was made for it."""
    if new.op == "call_function" and new.next is node and not new.users and new.target is not operator.getitem:
        rewrite(node, new.target, new.args)
        node.graph.erase_node(new)
    else:
        replace(node, new)


def _unreshaped(x: Node) -> Node:
    while x.target is RESHAPE:
        x = x.args[0]  # type: ignore[assignment]
    return x


def _unpermuted(x: Node, order: Sequence[int]) -> tuple[Node, list[int]]:
    while x.target is PERMUTE:
        inner: Any = x.args[1]
        x, order = x.args[0], [inner[i] for i in order]  # type: ignore[assignment]
    return x, list(order)


def keeps_memory_order(x: Node, order: Sequence[int]) -> bool:
    """Whether a permutation moves dimensions of size 1 only."""
    moving = [i for i in order if shape_of(x)[i] != 1]
    return moving == sorted(moving)


# ---- rules ----


def identity(node: Node, self: Node, **_: Any) -> None:
    """Copies, detaches and conversions to the type a value already has. Whole numbers and truth values that are
    computed are fp32 by now."""
    before, after = self.meta["val"].dtype, node.meta["val"].dtype
    if before != after and not (before == torch.float32 and after in (torch.bool, *WHOLE)):
        raise CannotCompile(f"converts {full_name(self.meta['val'].dtype)} to {full_name(node.meta['val'].dtype)}")
    replace(node, self)


def dropout(node: Node, input: Node, p: float, train: bool) -> None:
    if train and p:
        raise CannotCompile("dropout in training mode")
    identity(node, input)


def reshape(node: Node, self: Node, **_: Any) -> None:
    """Whatever only names a shape."""
    become(node, make_reshape(node, self, shape_of(node)))


def permute(node: Node, self: Node, dims: Sequence[int]) -> None:
    become(node, make_permute(node, self, [d % len(dims) for d in dims]))


def transpose(node: Node, self: Node, dim0: int = -2, dim1: int = -1) -> None:
    """``transpose(x, a, b)``, ``x.t()``, ``x.mT``."""
    rank = len(shape_of(node))
    order = list(range(rank))
    if rank > 1:
        first, second = dim0 % rank, dim1 % rank
        order[first], order[second] = second, first
    become(node, make_permute(node, self, order))


def slice_(node: Node, self: Node, dim: int, start: int | None, end: int | None, step: int) -> None:
    dim = dim % len(shape_of(self))
    first, last, step = slice(start, end, step).indices(shape_of(self)[dim])
    become(node, make_slice(node, self, dim, first, max(first, last), step))


def select(node: Node, self: Node, dim: int, index: int) -> None:
    dim = dim % len(shape_of(self))
    index = index % shape_of(self)[dim]
    become(node, make_reshape(node, make_slice(node, self, dim, index, index + 1), shape_of(node)))


def split(node: Node, self: Node, dim: int, **_: Any) -> None:
    """``split`` in equal or listed parts, whose sizes the node's values have: its getitems become slices."""
    dim = dim % len(shape_of(self))
    sizes = [part.shape[dim] for part in node.meta["val"]]
    for user in list(node.users):
        index: Any = user.args[1]
        start = sum(sizes[: index % len(sizes)])
        become(user, make_slice(user, self, dim, start, start + sizes[index]))


def unbind(node: Node, self: Node, dim: int) -> None:
    dim = dim % len(shape_of(self))
    for user in list(node.users):
        index: Any = user.args[1]
        index = index % shape_of(self)[dim]
        become(user, make_reshape(user, make_slice(user, self, dim, index, index + 1), shape_of(user)))


def fill(node: Node, fill_value: float | None = None, **_: Any) -> None:
    """A constant of one number; a large one is not stored."""
    number = float(node.target is _aten.ones.default) if fill_value is None else fill_value
    scalar = add_constant(
        node, f"{node.name}_value", torch.full((1,) * len(shape_of(node)), number, dtype=node.meta["val"].dtype)
    )
    rewrite(node, EXPAND, (scalar, list(shape_of(node))))


def expand(node: Node, self: Node, **_: Any) -> None:
    """To the shape that the node's value has."""
    shape = shape_of(node)
    if shape == shape_of(self):
        replace(node, self)
    else:
        x = make_reshape(node, self, (1,) * (len(shape) - len(shape_of(self))) + shape_of(self))
        rewrite(node, EXPAND, (x, list(shape)))


def repeat(node: Node, self: Node, repeats: Sequence[int]) -> None:
    """Repetition: of dimensions of size 1 an expand, of others a concat of copies."""
    repeated = make_reshape(node, self, (1,) * (len(repeats) - len(shape_of(self))) + shape_of(self))
    for dim, count in enumerate(repeats):
        if count == 0:
            raise CannotCompile("repeats nothing: the result is empty")
        if shape_of(repeated)[dim] > 1:
            repeated = make_concat(node, [repeated] * count, dim)
    if shape_of(repeated) != shape_of(node):
        repeated = insert(node, EXPAND, (repeated, list(shape_of(node))), node)
    become(node, repeated)


def roll(node: Node, self: Node, shifts: Sequence[int], dims: Sequence[int]) -> None:
    """Each rolled dimension: its end, then its beginning."""
    if not dims:
        raise CannotCompile("roll of the flattened tensor")
    x = self
    for dim, shift in zip(dims, shifts, strict=True):
        size = shape_of(x)[dim]
        if shift % size:
            dim, cut = dim % len(shape_of(x)), size - shift % size
            x = make_concat(node, [make_slice(node, x, dim, cut, size), make_slice(node, x, dim, 0, cut)], dim)
    become(node, x)


def concat(node: Node, dim: int, tensors: Sequence[Node] = (), xs: Sequence[Node] = ()) -> None:
    # torch.cat lets empty vectors pass, for old programs' sake.
    parts = [x for x in (*tensors, *xs) if prod(shape_of(x))]
    if not parts:
        raise CannotCompile("concatenates nothing: the result is empty")
    become(node, make_concat(node, parts, dim % len(shape_of(node))))


def stack(node: Node, tensors: Sequence[Node], dim: int) -> None:
    shape = shape_of(node)
    dim = dim % len(shape)
    part = (*shape[:dim], 1, *shape[dim + 1 :])
    become(node, make_concat(node, [make_reshape(node, x, part) for x in tensors], dim))


def pad(node: Node, self: Node, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> None:
    """``aten.pad`` and ``constant_pad_nd``: cropping (negative padding) becomes slices; then only what is really added
    is padded."""
    if mode != "constant":
        raise CannotCompile(f"padding mode '{mode}': pcc pads with constants")
    x, amounts, rank = self, list(pad), len(shape_of(self))
    if any(
        size + min(0, before) + min(0, after) <= 0
        for size, before, after in zip(reversed(shape_of(self)), amounts[::2], amounts[1::2], strict=False)
    ):
        return fill(node, float(value or 0.0))  # nothing of the input is left
    for position in range(0, len(amounts), 2):
        dim, size = rank - 1 - position // 2, shape_of(x)[rank - 1 - position // 2]
        x = make_slice(node, x, dim, max(0, -amounts[position]), size - max(0, -amounts[position + 1]))
    amounts = [max(0, amount) for amount in amounts]
    while amounts and not any(amounts[-2:]):
        amounts = amounts[:-2]
    if amounts:
        rewrite(node, PAD, (x, amounts, float(value or 0.0)))
    else:
        become(node, x)


RULES: dict[Any, Rule] = {
    **dict.fromkeys(
        (
            _aten.clone.default,
            _aten.contiguous.default,
            _aten.detach.default,
            _aten.alias.default,
            _aten.lift_fresh_copy.default,
        ),
        identity,
    ),
    _aten.positive.default: identity,
    **dict.fromkeys(
        (
            _aten.dropout.default,
            _aten.feature_dropout.default,
            _aten.alpha_dropout.default,
            _aten.feature_alpha_dropout.default,
        ),
        dropout,
    ),
    **dict.fromkeys(
        (_aten.view.default, _aten._unsafe_view.default, RESHAPE, _aten.flatten.using_ints, _aten.unflatten.int),
        reshape,
    ),
    **dict.fromkeys(
        (
            _aten.unsqueeze.default,
            _aten.squeeze.default,
            _aten.squeeze.dim,
            _aten.squeeze.dims,
            _aten.atleast_2d.default,
        ),
        reshape,
    ),
    **dict.fromkeys((_aten.zeros.default, _aten.ones.default, _aten.full.default), fill),
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
