"""Gradient modes and autocast that is off, inside a model: what runs under them computes what it would without."""

import operator
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from pcc.ir.graph import assign_attribute

_GRADIENTS = torch.ops.higher_order.wrap_with_set_grad_enabled
_AUTOCAST = torch.ops.higher_order.wrap_with_autocast


def inline_modes(exported: ExportedProgram) -> None:
    """Puts the parts of an exported model that run under such modes where they are called."""
    module = exported.graph_module
    while calls := [node for node in module.graph.nodes if _changes_nothing(node)]:
        for call in calls:
            _inline(module, call)
    module.graph.eliminate_dead_code()
    module.recompile()


def _changes_nothing(node: Node) -> bool:
    if node.target is _AUTOCAST:
        device, _, enabled = node.args[:3]
        return not enabled or device != "cpu"
    return node.target is _GRADIENTS


def _inline(module: GraphModule, call: Node) -> None:
    arguments: tuple[Any, ...] = call.args[1:] if call.target is _GRADIENTS else call.args[4:]
    name, *operands = arguments
    part = module.get_submodule(name.target)
    assert isinstance(part, GraphModule)
    values: dict[Node, Any] = dict(zip(part.graph.find_nodes(op="placeholder"), operands, strict=True))
    with module.graph.inserting_before(call):
        for node in part.graph.nodes:
            if node.op in ("placeholder", "output"):
                continue
            copied = module.graph.node_copy(node, lambda operand: values[operand])
            if node.op == "get_attr":
                target, value = f"{name.target}_{node.target}", operator.attrgetter(node.target)(part)
                copied.target = target
                if isinstance(value, nn.Module):  # what runs under a mode within
                    module.add_submodule(target, value)
                else:
                    assign_attribute(module, target, value)
            values[node] = copied
    outputs: Any = part.graph.output_node().args[0]
    for user in list(call.users):  # each takes an output
        place: Any = user.args[1]
        user.replace_all_uses_with(values[outputs[place]])
        module.graph.erase_node(user)
    module.graph.erase_node(call)
