"""A call's arguments by name, for passes that change a layer's weights, bias or epilogue."""

from typing import Any

from torch import Tensor
from torch.fx import Node

from pcc.ir.graph import add_constant, assign_attribute, fake_mode


def set_argument(node: Node, name: str, value: Any) -> None:
    """Changes one argument, named as in the operator's schema; the node has it by position, as canonical nodes do."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    node.update_arg(names.index(name), value)


def set_constant(node: Node, name: str, old: Node | None, value: Tensor, fallback: str) -> None:
    """Makes ``value`` (of the shape of ``old``) the argument ``name`` of a layer.

    A constant that only this layer reads keeps its name; else there is a new one beside it. ``fallback`` names it where there was none.
    """
    module = node.graph.owning_module
    assert module is not None
    if old is not None and len(old.users) == 1 and _readers(old) == 1 and sum(operand is old for operand in node.args) == 1:
        assign_attribute(module, str(old.target), value.detach().clone())
        old.meta["val"] = fake_mode(node.graph).from_tensor(value.detach())
        return
    set_argument(node, name, add_constant(node, str(old.target) if old is not None else fallback, value))


def users_of(constant: Node) -> int:
    """How many calls read a constant, through whatever ``get_attr`` node."""
    return sum(len(node.users) for node in constant.graph.find_nodes(op="get_attr", target=constant.target))


def _readers(constant: Node) -> int:
    """How many ``get_attr`` nodes read the same attribute."""
    return sum(1 for node in constant.graph.find_nodes(op="get_attr", target=constant.target))
