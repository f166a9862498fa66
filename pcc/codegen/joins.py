"""Concatenations without copies: whoever computes an operand writes it where it belongs in the result.

A channel shuffle behind one (Zhang et al., "ShuffleNet", 2018) only says where: neighbours among an operand's channels
lie as many planes apart as there are operands.
"""

from dataclasses import replace

from torch.fx import Node

from pcc.codegen.program import View
from pcc.ir.graph import arguments, shape_of
from pcc.ir.ops import CONCAT, PERMUTE, RESHAPE

_AXES = 4
"""N, C, H, W."""


def shuffle_of(concat: Node) -> tuple[Node, ...]:
    """The reshape, permute and reshape behind a concatenation of maps with equally many channels, and nothing else,
    that bring the channels of one number together; () where there are none."""
    operands, shape = arguments(concat)["xs"], shape_of(concat)
    if len(shape) != _AXES or arguments(concat)["dim"] % _AXES != 1 or len({shape_of(x)[1] for x in operands}) != 1:
        return ()
    count, channels, height, width = shape
    parts = len(operands)
    moves: list[Node] = []
    node = concat
    for target, after in (
        (RESHAPE, (count, parts, channels // parts, height, width)),
        (PERMUTE, (count, channels // parts, parts, height, width)),
        (RESHAPE, shape),
    ):
        follower = next(iter(node.users), None)
        if len(node.users) != 1 or follower is None or follower.target is not target or shape_of(follower) != after:
            return ()
        if target is PERMUTE and [dim % 5 for dim in arguments(follower)["dims"]] != [0, 2, 1, 3, 4]:
            return ()
        moves.append(node := follower)
    return tuple(moves)


def parts_of(whole: View, concat: Node, *, shuffled: bool) -> list[View]:
    """Where each operand lies in the result of a concatenation, shuffled or not."""
    operands = arguments(concat)["xs"]
    dim, parts, first = arguments(concat)["dim"] % len(whole.shape), [], 0
    for place, operand in enumerate(operands):
        stride = whole.strides[dim]
        offset = whole.offset + (place if shuffled else first) * stride
        apart = stride * len(operands) if shuffled else stride
        strides = (*whole.strides[:dim], apart, *whole.strides[dim + 1 :])
        parts.append(replace(whole, shape=shape_of(operand), strides=strides, offset=offset))
        first += shape_of(operand)[dim]
    return parts


def joining(node: Node) -> tuple[Node, int] | None:
    """The concatenation of channels that a value can be written into, and as which of its operands."""
    for user in node.users:
        if user.target is CONCAT and len(shape_of(user)) == _AXES and arguments(user)["dim"] % _AXES == 1:
            operands = arguments(user)["xs"]
            if operands.count(node) == 1 and user.meta["val"].dtype == node.meta["val"].dtype:
                return user, operands.index(node)
    return None
