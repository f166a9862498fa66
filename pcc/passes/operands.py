"""A call's arguments by name, for passes that change a layer's weights, bias or epilogue.

Constants may be shared: a module called twice, or equal values that fold-constants stores once. Who changes a constant
changes it for one call only: `set_constant` and `change_operand` give the call a constant of its own where others read
the old one. `share_constants` makes equal ones one again.
"""

import hashlib
from collections import defaultdict
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node

from pcc.ir.graph import add_constant, arguments, assign_attribute, constant, fake_mode


def set_argument(node: Node, name: str, value: Any) -> None:
    """Changes one argument, named as in the operator's schema; the node has its arguments by position, as canonical
    nodes do."""
    values = {**arguments(node), name: value}
    node.args = tuple(values.values())[: max(len(node.args), list(values).index(name) + 1)]


def set_constant(node: Node, name: str, old: Node | None, value: Tensor, fallback: str) -> None:
    """Makes ``value`` the argument ``name`` of a layer, which was ``old``.

    A constant that only this argument reads keeps its name; else there is a new one beside it. ``fallback`` names it
    where there was none.
    """
    if old is not None and _is_only_reader(node, old) and sum(operand is old for operand in node.args) == 1:
        _assign(old, value)
    else:
        set_argument(node, name, add_constant(node, str(old.target) if old is not None else fallback, value))


def change_operand(node: Node, operand: Node, value: Tensor) -> None:
    """Gives a call another value wherever it reads the constant ``operand``; other readers keep the old one."""
    if _is_only_reader(node, operand):
        _assign(operand, value)
    else:
        node.replace_input_with(operand, add_constant(node, str(operand.target), value))


def share_constants(graph_module: GraphModule) -> None:
    """Readers of an attribute, or of one with the same type, shape and bytes, read the first such node; the others are
    left without readers."""
    alike: dict[tuple[Any, ...], list[Node]] = defaultdict(list)
    for node in graph_module.graph.find_nodes(op="get_attr"):
        value = constant(node)
        alike[value.dtype, value.shape].append(node)
    for nodes in alike.values():
        first: dict[bytes, Node] = {}
        for node in nodes if len(nodes) > 1 else ():
            original = first.setdefault(hashlib.sha256(constant(node).contiguous().numpy().tobytes()).digest(), node)
            if original is not node:
                node.replace_all_uses_with(original)


def _is_only_reader(node: Node, constant: Node) -> bool:
    """Whether no other call reads the attribute, through whatever ``get_attr`` node."""
    nodes = constant.graph.find_nodes(op="get_attr", target=constant.target)
    return len(nodes) == 1 and set(constant.users) == {node}


def _assign(constant: Node, value: Tensor) -> None:
    module = constant.graph.owning_module
    assert module is not None
    assign_attribute(module, str(constant.target), value.detach().clone())
    constant.meta["val"] = fake_mode(constant.graph).from_tensor(value.detach())
