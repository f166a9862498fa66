"""What stays fp32 when a network becomes narrower: fp16 holds whole numbers up to 2048, and nothing beyond 65,504."""

from collections.abc import Iterable
from math import prod
from typing import Any

import torch
from torch.fx import GraphModule, Node

from pcc.ir import ops
from pcc.ir.expression import COMPARISONS, Call, Expr, Literal, Operand, numbers, parse, walk
from pcc.ir.graph import arguments, constant, shape_of

LAYERS = (ops.CONV2D, ops.LINEAR, ops.MATMUL)
_MOVES = (ops.RESHAPE, ops.PERMUTE, ops.SLICE, ops.PAD)
_OF_EACH = (ops.ELEMENTWISE, *_MOVES, ops.EXPAND, ops.CONCAT)

_BOUNDING = ("add", "sub", "max", "min", "clip", "where")
_PASSING = ("mul", "div", "sqrt", "rsqrt", "reciprocal", "pow", "abs", "neg")
"""Functions through which a small number decides what comes out."""


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
        elif not whole.isdisjoint(computed) and any(call.function in COMPARISONS for call in _calls(node)):
            comparing.add(node)
    return whole | comparing


def statistics(graph_module: GraphModule) -> set[Node]:
    """What goes beyond fp16 on the way to numbers that do not: powers that are summed and sums that are divided again
    (norms, variances, scales), and what a small number keeps from zero lest somebody divides by it."""
    found: set[Node] = set()
    for node in graph_module.graph.nodes:
        if node.target is ops.POOL2D and arguments(node)["mode"] != "max":
            path = [node, *_moved(arguments(node)["x"])]
            smaller = _no_larger(node)
            if _is_power(path[-1]):
                found |= {*path, *smaller, *_operands_within([*path, *smaller], _size(node))}
            elif any(map(_is_sum, smaller)) and any(map(_divides, {user for part in smaller for user in part.users})):
                found |= smaller
        elif _is_product_with_itself(node) or _keeps_from_zero(node):
            found |= {node, *_no_larger(node)}
    for node in graph_module.graph.nodes:
        computed = [operand for operand in node.all_input_nodes if operand.op != "get_attr"]
        if node.target in _OF_EACH and computed and found.issuperset(computed):
            found.add(node)
    return found


def _no_larger(node: Node) -> set[Node]:
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


def _operands_within(nodes: Iterable[Node], size: int) -> set[Node]:
    """What the nodes are computed of, value by value or as averages, where it has at most so many values: the means
    that are taken off squares."""
    pending, found = list(nodes), set[Node]()
    while pending:
        for operand in pending.pop().all_input_nodes:
            averages = operand.target is ops.POOL2D and arguments(operand)["mode"] != "max"
            if (averages or operand.target in _OF_EACH) and operand not in found and _size(operand) <= size:
                found.add(operand)
                pending.append(operand)
    return found


def _moved(node: Node) -> list[Node]:
    """A value and what it was before it was moved, back to where it was computed."""
    path = [node]
    while path[-1].target in _MOVES:
        path.append(path[-1].all_input_nodes[0])
    return path


def _is_product_with_itself(node: Node) -> bool:
    return node.target is ops.MATMUL and len({_moved(operand)[-1] for operand in node.all_input_nodes}) == 1


def _is_power(node: Node) -> bool:
    """Whether a node multiplies something by itself."""
    return any(
        call.args[0] == call.args[1]
        if call.function == "mul"
        else call.function == "pow" and not (isinstance(call.args[1], Literal) and call.args[1].value <= 1)
        for call in _calls(node)
    )


def _is_sum(node: Node) -> bool:
    """Whether a node makes averages sums."""
    return any(call.function == "mul" and any(abs(value) > 1 for value in numbers(call.args)) for call in _calls(node))


def _divides(node: Node) -> bool:
    return any(
        call.function in ("div", "reciprocal", "rsqrt")
        or (call.function == "mul" and any(abs(value) < 1 for value in numbers(call.args)))
        for call in _calls(node)
    )


def _keeps_from_zero(node: Node) -> bool:
    """Whether a number that is little in fp16, a literal or a constant, decides what a node gives at zero."""
    if node.target is not ops.ELEMENTWISE:
        return False
    little = {
        Operand(place)
        for place, operand in enumerate(arguments(node)["xs"])
        if operand.op == "get_attr" and all(map(_is_little, map(float, constant(operand).aminmax())))
    }

    def keeps(part: Expr) -> bool:
        if not isinstance(part, Call) or part.function not in (*_BOUNDING, *_PASSING):
            return False
        if part.function in _BOUNDING and (
            any(map(_is_little, numbers(part.args))) or not little.isdisjoint(part.args)
        ):
            return True
        divided = part.function == "div" and not isinstance(part.args[0], Literal)
        return any(map(keeps, part.args[:1] if divided else part.args))

    return keeps(_expression(node))


def _is_little(value: float) -> bool:
    return 0 < abs(value) < torch.finfo(torch.float16).smallest_normal


def _calls(node: Node) -> list[Call]:
    """The functions that a node applies to each element."""
    if node.target is not ops.ELEMENTWISE:
        return []
    return [part for part in walk(_expression(node)) if isinstance(part, Call)]


def _expression(node: Node) -> Expr:
    return parse(arguments(node)["expression"])
