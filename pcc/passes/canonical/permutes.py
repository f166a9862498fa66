"""Permutations move behind what can be computed in either order, so that those around a convolution meet and cancel.

Networks that were written with channels last (TensorFlow, Keras) come as NCHW convolutions between two transposes each,
with bias, activation, padding and concatenation in between.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node

from pcc.ir.graph import insert, is_constant, shape_of
from pcc.ir.ops import CONCAT, ELEMENTWISE, PAD, PERMUTE, SLICE
from pcc.passes.canonical import pointwise
from pcc.passes.canonical.moves import become, keeps_memory_order, make_permute, make_reshape


def sink_permute(node: Node) -> None:
    """If a canonical node reads permuted values, all in one order, it reads what was permuted, and its result is
    permuted.

    Whoever else reads the permuted values has to be able to do without the permutation, too, else there would be more
    of them than before. What else the node reads is constant, or is permuted for nothing, because only dimensions of
    size 1 move.
    """
    sink = _SINKS.get(node.target)
    if node._erased or sink is None:
        return
    operands: Any = node.args[0] if isinstance(node.args[0], list | tuple) else [node.args[0]]
    permuted = [x for x in operands if isinstance(x, Node) and x.target is PERMUTE]
    if not permuted or any(user.target not in _INDIFFERENT for x in permuted for user in x.users):
        return
    order: Any = permuted[0].args[1]
    inverse = [order.index(dim) for dim in range(len(order))]
    if len(shape_of(node)) != len(order) or any(x.args[1] != order for x in permuted):
        return
    full = [make_reshape(node, x, (1,) * (len(order) - len(shape_of(x))) + shape_of(x)) for x in operands]
    if all(x.target is PERMUTE or is_constant(x) or keeps_memory_order(x, inverse) for x in full):
        moved = insert(
            node,
            node.target,
            sink(node, [make_permute(node, x, inverse) for x in full], order),
            node,
            f"{node.name}_inside",
        )
        become(node, make_permute(node, moved, order))


def _elementwise(node: Node, xs: list[Node], order: Sequence[int]) -> tuple[Any, ...]:
    return xs, node.args[1]


def _concat(node: Node, xs: list[Node], order: Sequence[int]) -> tuple[Any, ...]:
    dim: Any = node.args[1]
    return xs, order[dim]


def _slice(node: Node, xs: list[Node], order: Sequence[int]) -> tuple[Any, ...]:
    dim: Any = node.args[1]
    return xs[0], order[dim], *node.args[2:]


def _pad(node: Node, xs: list[Node], order: Sequence[int]) -> tuple[Any, ...]:
    """Amounts stand from the last dimension on."""
    pad: Any = node.args[1]
    rank, amounts = len(order), [0] * (2 * len(order))
    for position in range(len(pad) // 2):
        place = rank - 1 - order[rank - 1 - position]
        amounts[2 * place : 2 * place + 2] = pad[2 * position : 2 * position + 2]
    while not any(amounts[-2:]):
        amounts = amounts[:-2]
    return xs[0], amounts, *node.args[2:]


_aten: Any = torch.ops.aten

_INDIFFERENT = {
    *(
        *pointwise.RULES,
        PERMUTE,
        CONCAT,
        SLICE,
        PAD,
        _aten.transpose.int,
        _aten.t.default,
        _aten.mT.default,
        _aten.cat.default,
        _aten.pad.default,
    ),
    *(_aten.mean.dim, _aten.sum.dim_IntList, _aten.amax.default),
}
"""Operators that need no permuted operand as it is: they are sunk into, or read what was permuted."""

_SINKS: dict[Any, Callable[[Node, list[Node], Sequence[int]], tuple[Any, ...]]] = {
    ELEMENTWISE: _elementwise,
    CONCAT: _concat,
    SLICE: _slice,
    PAD: _pad,
}
"""The arguments of the same call inside of the permutation."""
