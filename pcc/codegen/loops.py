"""What the choice between a GPU and its processor goes by on both sides: how often the loops of operators turn that no
kernel family prices, and how long weights take from memory."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from torch.fx import Node

from pcc.codegen.program import Call, Program, View
from pcc.ir import ops
from pcc.ir.graph import arguments, shape_of

BYTES_PER_SECOND = 10e9
"""Of memory, which a phone's GPU and processor share: *assumed*."""


def memory_seconds(program: Program[Any], calls: Iterable[Call[Any]]) -> float:
    """How long the weights that calls read come from memory, each once: no call takes less."""
    read = {value.buffer for call in calls for value in call.args.values() if isinstance(value, View)}
    buffers = (program.buffers[name] for name in read)
    return sum(buffer.nbytes for buffer in buffers if buffer.is_weight) / BYTES_PER_SECOND


@dataclass(frozen=True)
class Loops:
    """Items that do not wait for each other, each of steps that do."""

    items: int
    steps: int
    reads: int = 1
    """Numbers that a step reads."""


def loops_of(node: Node) -> Loops:
    """Of a node that is no convolution and no linear layer."""
    rule = _RULES.get(node.target)
    return Loops(prod(shape_of(node)), 1, len(node.all_input_nodes)) if rule is None else rule(arguments(node))


def _nms(args: Mapping[str, Any]) -> Loops:
    """Each box that stays is looked for among all, which are then compared with it."""
    batch, classes, boxes = shape_of(args["scores"])
    return Loops(batch * classes, boxes * (1 + 2 * args["count"]), 3)


def _top_k(args: Mapping[str, Any]) -> Loops:
    outer, size, inner = shape_of(args["x"])
    return Loops(outer * inner, size * args["k"])


def _scan(args: Mapping[str, Any]) -> Loops:
    outer, size, inner = shape_of(args["x"])
    return Loops(outer * inner, size)


def _scatter(args: Mapping[str, Any]) -> Loops:
    rows, places = shape_of(args["index"])
    return Loops(rows, places, 3)


def _softmax(args: Mapping[str, Any]) -> Loops:
    """The largest, the sum, the quotients."""
    shape = shape_of(args["x"])
    size = shape[args["dim"]]
    return Loops(prod(shape) // size, 3 * size)


def _matmul(args: Mapping[str, Any]) -> Loops:
    *rows, depth = shape_of(args["a"])
    return Loops(prod(rows) * shape_of(args["b"])[-1], depth, 2)


def _pool(args: Mapping[str, Any]) -> Loops:
    return Loops(prod(shape_of(args["x"])), 1)


_RULES: dict[Any, Callable[[Mapping[str, Any]], Loops]] = {
    ops.MATMUL: _matmul,
    ops.NMS: _nms,
    ops.POOL2D: _pool,
    ops.SCAN: _scan,
    ops.SCATTER: _scatter,
    ops.SOFTMAX: _softmax,
    ops.TOP_K: _top_k,
}
"""Those of other operators turn once for each number that they give."""
