"""What operators that only move elements do with an array that says something of each element and broadcasts to the
value's shape."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch.fx import Node

from pcc.ir.graph import arguments, shape_of
from pcc.ir.ops import CONCAT, EXPAND, PERMUTE, RESHAPE, SLICE


def move(node: Node, arrays: Mapping[Node, np.ndarray]) -> np.ndarray:
    """The array of a node of `MOVES`, given those of its operands: of the value's rank, size 1 where elements along a
    dimension are alike."""
    return MOVES[node.target](node, [arrays[x] for x in operands(node)])


def operands(node: Node) -> list[Node]:
    """What a node of `MOVES` reads, in order, as often as it reads it."""
    return list(arguments(node)["xs"]) if node.target is CONCAT else [node.all_input_nodes[0]]


def compressed(array: np.ndarray) -> np.ndarray:
    """The array with size 1 along each dimension in which nothing differs (NaN equals NaN)."""
    for axis, size in enumerate(array.shape):
        if size > 1:
            first = array.take([0], axis)
            if ((array == first) | ((array != array) & (first != first))).all():
                array = first
    return array


def bounds(node: Node) -> tuple[int, range]:
    """The dimension of a slice, and the places along it that are taken."""
    args = arguments(node)
    x = shape_of(node.all_input_nodes[0])
    dim = args["dim"] % len(x)
    return dim, range(x[dim])[slice(args["start"], args["end"], args["step"])]


def padding(node: Node) -> list[tuple[int, int]]:
    """How much a padding adds before and behind along each dimension; negative where it cuts."""
    rank, amounts = len(shape_of(node)), list(arguments(node)["pad"])
    pairs = list(zip(amounts[::2], amounts[1::2], strict=True))[::-1]
    return [(0, 0)] * (rank - len(pairs)) + pairs


def pad(node: Node, array: np.ndarray, fill: float) -> np.ndarray:
    """The array of a padded value: ``fill`` for what is added along dimensions in which the array differs; along others
    it stays."""
    for axis, (before, behind) in enumerate(padding(node)):
        if array.shape[axis] > 1:
            array = array.take(np.arange(max(0, -before), array.shape[axis] - max(0, -behind)), axis)
            sides = [(0, 0)] * array.ndim
            sides[axis] = max(0, before), max(0, behind)
            array = np.pad(array, sides, constant_values=fill)
    return array


def _reshape(node: Node, arrays: list[np.ndarray]) -> np.ndarray:
    if arrays[0].size == 1:
        return arrays[0].reshape((1,) * len(shape_of(node)))
    return compressed(np.broadcast_to(arrays[0], shape_of(node.all_input_nodes[0])).reshape(shape_of(node)))


def _permute(node: Node, arrays: list[np.ndarray]) -> np.ndarray:
    return arrays[0].transpose([dim % arrays[0].ndim for dim in arguments(node)["dims"]])


def _expand(node: Node, arrays: list[np.ndarray]) -> np.ndarray:
    return arrays[0].reshape((1,) * (len(shape_of(node)) - arrays[0].ndim) + arrays[0].shape)


def _slice(node: Node, arrays: list[np.ndarray]) -> np.ndarray:
    dim, taken = bounds(node)
    return arrays[0] if arrays[0].shape[dim] == 1 else compressed(arrays[0].take(list(taken), dim))


def _concat(node: Node, arrays: list[np.ndarray]) -> np.ndarray:
    dim = arguments(node)["dim"] % len(shape_of(node))
    sizes = list(np.broadcast_shapes(*((*array.shape[:dim], 1, *array.shape[dim + 1 :]) for array in arrays)))
    parts = [
        np.broadcast_to(a, [*sizes[:dim], shape_of(x)[dim], *sizes[dim + 1 :]])
        for a, x in zip(arrays, operands(node), strict=True)
    ]
    return compressed(np.concatenate(parts, dim))


MOVES: dict[Any, Callable[[Node, list[np.ndarray]], np.ndarray]] = {
    RESHAPE: _reshape,
    PERMUTE: _permute,
    EXPAND: _expand,
    SLICE: _slice,
    CONCAT: _concat,
}
