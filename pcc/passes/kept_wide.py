"""What stays fp32 when a network becomes narrower: fp16 holds whole numbers up to 2048, and nothing beyond 65,504."""

from collections.abc import Iterable
from math import prod
from typing import Any

from torch.fx import GraphModule, Node

from pcc.ir import ops
from pcc.ir.expression import COMPARISONS, Call, Expr, parse, walk
from pcc.ir.graph import arguments, shape_of

LAYERS = (ops.CONV2D, ops.LINEAR, ops.MATMUL)
_MOVES = (ops.RESHAPE, ops.PERMUTE, ops.SLICE, ops.PAD)
_OF_EACH = (ops.ELEMENTWISE, *_MOVES, ops.EXPAND, ops.CONCAT)


def computing_places(graph_module: GraphModule) -> set[Node]:
    """The nodes from which indices and whole numbers are computed, back to the layers whose values they look at."""
    pending = [node.args[0] for node in graph_module.graph.nodes if node.target is ops.CONVERT]
    pending += [
        arguments(node)["index"] for node in graph_module.graph.nodes if node.target in (ops.GATHER, ops.SCATTER)
    ]
    found: set[Any] = set()
    while pending:
        node = pending.pop()
        if isinstance(node, Node) and node.op == "call_function" and node not in found and node.target not in LAYERS:
            found.add(node)
            pending += node.all_input_nodes
    return found


def comparing_whole_numbers(graph_module: GraphModule) -> set[Node]:
    """What is computed of whole numbers alone, such as identifiers, places and lengths, up to where they are compared.

    Whole numbers are inputs of such a type, and what operators find that stay fp32 anyway.
    """
    whole: set[Node] = set()
    comparing: set[Node] = set()
    for node in graph_module.graph.nodes:
        if node.op != "call_function" or node.target in (ops.UNPACK, *LAYERS):
            continue
        computed = [operand for operand in node.all_input_nodes if operand.op != "get_attr"]
        if node.target is ops.CONVERT:
            if not computed[0].meta["val"].dtype.is_floating_point:
                whole.add(node)
        elif node.target not in _OF_EACH:
            if node.target not in (ops.POOL2D, ops.RESIZE2D, ops.SOFTMAX, ops.GATHER):
                whole.add(node)
        elif computed and whole.issuperset(computed):
            whole.add(node)
        elif not whole.isdisjoint(computed) and _calls(node, COMPARISONS):
            comparing.add(node)
    return whole | comparing


def statistics(graph_module: GraphModule) -> set[Node]:
    """Squares that are summed, their sums, and what is computed of these: norms, variances, scales."""
    found: set[Node] = set()
    for pool in graph_module.graph.nodes:
        if pool.target is not ops.POOL2D or arguments(pool)["mode"] == "max":
            continue
        path, node = [pool], arguments(pool)["x"]
        while node.target in _MOVES:
            path.append(node)
            node = node.all_input_nodes[0]
        if _squares(node):
            found |= {node, *path, *_no_larger(pool)}
    return found


def _no_larger(node: Node) -> Iterable[Node]:
    """What is computed of a node, value by value, and has no more of them."""
    pending, found = [node], set[Node]()
    while pending:
        for user in pending.pop().users:
            if user.target in (*_OF_EACH, ops.POOL2D) and user not in found and _size(user) <= _size(node):
                found.add(user)
                pending.append(user)
    return found


def _size(node: Node) -> int:
    return prod(shape_of(node))


def _squares(node: Node) -> bool:
    """Whether a node multiplies something by itself."""
    return node.target is ops.ELEMENTWISE and any(
        isinstance(part, Call) and part.function == "mul" and part.args[0] == part.args[1]
        for part in walk(_expression(node))
    )


def _calls(node: Node, functions: Iterable[str]) -> bool:
    return node.target is ops.ELEMENTWISE and any(
        isinstance(part, Call) and part.function in functions for part in walk(_expression(node))
    )


def _expression(node: Node) -> Expr:
    return parse(arguments(node)["expression"])
