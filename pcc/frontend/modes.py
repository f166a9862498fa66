"""Gradient modes and autocast that is off, inside a model: what runs under them computes what it would without."""

import operator

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
    name, *operands = call.args[1:] if call.target is _GRADIENTS else call.args[4:]
    assert isinstance(name, Node)
    part = module.get_submodule(str(name.target))
    assert isinstance(part, GraphModule)
    values = dict(zip(part.graph.find_nodes(op="placeholder"), operands, strict=True))
    with module.graph.inserting_before(call):
        for node in part.graph.nodes:
            if node.op in ("placeholder", "output"):
                continue
            copied = module.graph.node_copy(node, lambda operand: values[operand])
            if node.op == "get_attr":
                copied.target, value = f"{name.target}_{node.target}", operator.attrgetter(node.target)(part)
                if isinstance(value, nn.Module):  # what runs under a mode within
                    module.add_submodule(copied.target, value)
                else:
                    assign_attribute(module, copied.target, value)
            values[node] = copied
    (outputs,) = part.graph.output_node().args
    for user in list(call.users):  # each takes an output
        user.replace_all_uses_with(values[outputs[user.args[1]]])
        module.graph.erase_node(user)
    module.graph.erase_node(call)
