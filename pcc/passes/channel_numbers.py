"""Channels that are the same number whatever the input is: what filters of zeros emit, through all that stands behind
them.

A filter of zeros gives its bias, which a batch norm shifts and an activation may cut to zero. The numbers are followed
as far as they are one number for a channel. A convolution that pads with zeros sees less of a number near the border
than inside, so behind it there is no single one.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule, Node

from pcc.ir.activation import Activation
from pcc.ir.channels import LAYERS, computed_operands, is_constant_layer
from pcc.ir.graph import arguments, constant, shape_of
from pcc.ir.moves import MOVES, compressed, move, pad, padding
from pcc.ir.ops import BATCH_NORM, ELEMENTWISE, PAD, POOL2D, RESIZE2D

Numbers = dict[Node, np.ndarray]
"""For each value fp32 of its rank, which broadcasts to it; NaN where the value depends on the input."""

_JUMPS = {"floor", "ceil", "trunc", "round", "fmod", "lt", "le", "gt", "ge", "eq", "ne", "where"}
"""Functions that make much of a rounding error."""


def channel_numbers(graph_module: GraphModule) -> Numbers:
    """What is known of each value of a graph of canonical operators."""
    numbers: Numbers = {}
    for node in graph_module.graph.nodes:
        shape = getattr(node.meta.get("val"), "shape", ())
        numbers[node] = np.full((1,) * len(shape), np.nan, np.float32)
        if node.target in _RULES and 0 not in shape:
            numbers[node] = _RULES[node.target](node, numbers)
    return numbers


def numbers_of_channels(x: Node, numbers: Numbers) -> np.ndarray:
    """What each channel of a value is, fp32 (C,); NaN where that depends on the input, or differs inside the
    channel."""
    array = np.moveaxis(numbers[x], 1, 0).reshape(numbers[x].shape[1], -1)
    alike = np.where((array == array[:, :1]).all(axis=1), array[:, 0], np.float32(np.nan))
    return np.broadcast_to(alike, shape_of(x)[1])


@dataclass(frozen=True)
class Reading:
    """What a layer of constant weights reads, by connection; arrays are (groups, O / groups, I / groups)."""

    weighted: np.ndarray
    """Connections whose weights are not all zero."""
    foldable: np.ndarray
    """Whether what a connection reads can be added to the bias: a number that no border makes smaller. Zero always
    can."""
    numbers: np.ndarray
    """What channels are, (I,) fp32."""

    @property
    def alive(self) -> np.ndarray:
        """Connections through which something is read that is not known."""
        return self.weighted & ~self.foldable


def read_channels(layer: Node, numbers: Numbers) -> Reading:
    """What a convolution or linear layer of constant weights reads."""
    args = arguments(layer)
    weighted: np.ndarray = np.asarray(
        _grouped(constant(args["weight"]).numpy() != 0, args.get("groups", 1)).any(axis=3)
    )
    found = numbers_of_channels(args["x"], numbers)
    foldable = (found == 0) | (~np.isnan(found) & (not pads(layer)))
    return Reading(weighted, foldable.reshape(len(weighted), 1, -1), found)


def pads(layer: Node) -> bool:
    """Whether a layer reads zeros around its input."""
    return any(arguments(layer).get("padding", ()))


def offsets(layer: Node, reading: Reading, chosen: np.ndarray | None = None) -> np.ndarray:
    """What the numbers that a layer reads add to each output, float64 (O,); ``chosen``, bool (I,), says of which
    channels."""
    counted = reading.foldable.ravel() & (reading.numbers != 0) & (True if chosen is None else chosen)
    total = np.zeros(reading.weighted.shape[:2])
    weight = _grouped(constant(arguments(layer)["weight"]).numpy(), len(total))
    for channel in np.flatnonzero(counted):
        group, place = divmod(int(channel), weight.shape[2])
        total[group] += float(reading.numbers[channel]) * weight[group, :, place].sum(axis=1, dtype=np.float64)
    return total.ravel()


def _grouped(weight: np.ndarray, groups: int) -> np.ndarray:
    """(groups, O / groups, I / groups, taps)."""
    return weight.reshape(groups, len(weight) // groups, weight.shape[1], prod(weight.shape[2:]))


# ---- rules ----


def _layer(node: Node, numbers: Numbers) -> np.ndarray:
    if not is_constant_layer(node):
        return numbers[node]
    args, shape = arguments(node), shape_of(node)
    reading = read_channels(node, numbers)
    dead = ~reading.alive.any(axis=2).ravel()
    number = np.full(shape[1], np.nan, np.float32)
    if dead.any():
        bias = 0.0 if args["bias"] is None else constant(args["bias"]).double().numpy()
        residual = 0.0 if args["residual"] is None else numbers_of_channels(args["residual"], numbers)
        emitted = torch.from_numpy(np.asarray(bias + offsets(node, reading) + residual, np.float32))
        parameter = None if args["parameter"] is None else constant(args["parameter"]).float()
        number = np.where(dead, Activation.parse(args["activation"])(emitted, parameter).numpy(), number)
    return number.reshape(1, -1, *(1,) * (len(shape) - 2))


def _elementwise(node: Node, numbers: Numbers) -> np.ndarray:
    args, rank = arguments(node), len(shape_of(node))
    computed = [numbers[x] for x in computed_operands(node)]
    if all(np.isnan(array).all() for array in computed):
        return numbers[node]
    known = np.all(
        np.broadcast_arrays(
            *(~np.isnan(array.reshape((1,) * (rank - array.ndim) + array.shape)) for array in computed)
        ),
        axis=0,
    )
    if _JUMPS & set(re.findall(r"\w+(?=\()", args["expression"])) and any(
        np.nan_to_num(array).any() for array in computed
    ):
        return numbers[node]
    values = [constant(x) if x.op == "get_attr" else torch.tensor(numbers[x]) for x in args["xs"]]
    result = node.target(values, args["expression"]).numpy()  # type: ignore[operator]
    return compressed(np.where(known, result, np.float32(np.nan)).astype(np.float32))


def _batch_norm(node: Node, numbers: Numbers) -> np.ndarray:
    args = arguments(node)
    x = numbers_of_channels(args["input"], numbers)
    parameters = [args[name] for name in ("weight", "bias", "running_mean", "running_var")]
    if args["training"] or any(parameter is not None and parameter.op != "get_attr" for parameter in parameters):
        return numbers[node]
    scale, shift, mean, variance = (None if parameter is None else constant(parameter) for parameter in parameters)
    found = torch.batch_norm(
        torch.from_numpy(x.copy())[None], scale, shift, mean, variance, False, 0.0, args["eps"], False
    )
    return found.numpy().reshape(1, -1, *(1,) * (len(shape_of(node)) - 2))


def _pool(node: Node, numbers: Numbers) -> np.ndarray:
    """The largest of equal numbers is that number; a mean may count zeros at the border."""
    args = arguments(node)
    number = _channelwise(node, numbers)
    if args["mode"] == "sum":
        return number * np.float32(prod(args["kernel"]))
    partly = args["mode"] == "avg" and args["count_include_pad"] and any(args["padding"])
    return np.where(number == 0, number, np.float32(np.nan)) if partly else number


def _channelwise(node: Node, numbers: Numbers) -> np.ndarray:
    return numbers_of_channels(node.all_input_nodes[0], numbers).reshape(1, -1, *(1,) * (len(shape_of(node)) - 2))


def _pad(node: Node, numbers: Numbers) -> np.ndarray:
    """Numbers that stand beside others are no longer one, but for those that are what is padded with."""
    x, fill = numbers[node.all_input_nodes[0]], arguments(node)["value"]
    inside = [
        axis for axis, (before, behind) in enumerate(padding(node)) if x.shape[axis] == 1 and max(before, behind) > 0
    ]
    return pad(node, np.where(x == fill, x, np.float32(np.nan)) if inside else x, fill)


_RULES: dict[Any, Callable[[Node, Numbers], np.ndarray]] = {
    **dict.fromkeys(LAYERS, _layer),
    ELEMENTWISE: _elementwise,
    BATCH_NORM: _batch_norm,
    POOL2D: _pool,
    RESIZE2D: _channelwise,
    PAD: _pad,
    **dict.fromkeys(MOVES, move),
}
