"""Constants of a graph: ``get_attr`` nodes and the tensors they stand for. Every pass reads, replaces and adds constants through here."""

import re

import torch
from torch import Tensor
from torch.fx import GraphModule, Node


def constant_value(graph_module: GraphModule, node: Node) -> Tensor:
    """The tensor of a ``get_attr`` node."""
    assert node.op == "get_attr", node
    value = graph_module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    assert isinstance(value, Tensor)
    return value.detach()


def is_constant(node: object) -> bool:
    """Whether a node's value is known when compiling."""
    return isinstance(node, Node) and node.op == "get_attr"


def add_constant(graph_module: GraphModule, name: str, value: Tensor, before: Node) -> Node:
    """A new ``get_attr`` node, placed before a node, for a new constant named after ``name`` (made an identifier, and unique)."""
    stem = re.sub(r"\W", "_", name)
    unique, count = stem, 1
    while hasattr(graph_module, unique):
        count += 1
        unique = f"{stem}_{count}"
    value = value.detach().clone(memory_format=torch.contiguous_format)
    graph_module.register_buffer(unique, value)
    with graph_module.graph.inserting_before(before):
        node = graph_module.graph.get_attr(unique)
    node.meta["val"] = value.to("meta")
    return node


def replace_constant(graph_module: GraphModule, user: Node, old: Node, value: Tensor) -> Node:
    """Gives ``user`` a new constant in place of ``old``; other users keep theirs, and ``old`` goes when nobody is left."""
    new = add_constant(graph_module, str(old.target), value, user)
    user.replace_input_with(old, new)
    if not old.users:
        graph_module.graph.erase_node(old)
    return new
