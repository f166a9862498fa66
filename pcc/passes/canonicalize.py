"""One form for each thing a CNN does: ATen becomes ``pcc::`` operators and six kinds of data movement. The rules are in
`pcc.passes.canonical`."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult

from pcc.dtype import dtype_of
from pcc.ir.annotations import Skipped, annotate, carry
from pcc.ir.graph import finish, infer, insert, is_constant
from pcc.ir.ops import CANONICAL, CONVERT
from pcc.passes.canonical import CannotCompile, Rule, apply_rule, layers, moves, pointwise
from pcc.passes.canonical.permutes import sink_permute

_aten: Any = torch.ops.aten

RULES: dict[Any, Rule] = {**moves.RULES, **pointwise.RULES, **layers.RULES}


@dataclass(frozen=True)
class Canonicalize:
    """Rewrites ATen operators to pcc's own: convolutions, pools, elementwise expressions, one reshape; drops dropout,
    copies and no-ops."""

    name: ClassVar[str] = "canonicalize"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: GraphModule) -> PassResult:
        before, output = str(graph_module.graph), graph_module.graph.output_node()
        types = [node.meta["val"].dtype for node in output.args[0]]  # type: ignore[union-attr]
        _take_as_fp32(graph_module)
        # Producers come before their users, so a rule sees operands that are canonical already.
        for node in list(graph_module.graph.nodes):
            rule = (
                RULES.get(node.target)
                if node.op == "call_function" and not node._erased and not _is_table(node)
                else None
            )
            try:
                if rule is not None:
                    apply_rule(rule, node)
                    _read_as_fp32(node)
                    sink_permute(node)
            except CannotCompile as error:
                annotate(node, Skipped(self.name, str(error)))
        _return_as(output, types)
        finish(graph_module)
        return PassResult(graph_module, str(graph_module.graph) != before)


def _take_as_fp32(graph_module: GraphModule) -> None:
    """What the model takes as whole numbers or truth values (as uint8) is converted first, and is fp32 in the canonical
    graph."""
    for node in graph_module.graph.find_nodes(op="placeholder"):
        dtype = node.meta["val"].dtype
        if dtype == torch.float32:
            continue
        with graph_module.graph.inserting_after(node):
            number = graph_module.graph.create_node(
                "call_function", CONVERT, (node, "float32"), name=f"{node.name}_fp32"
            )
        node.replace_all_uses_with(number, delete_user_cb=lambda user, number=number: user is not number)
        carry(node, number)
        if dtype == torch.bool:
            node.meta["val"] = node.meta["val"].to(torch.uint8)
        infer(number)


def _return_as(output: Node, types: list[torch.dtype]) -> None:
    """What the model returns as whole numbers or truth values (as uint8), and is fp32 in the canonical graph, is
    converted at its end. Truth values that are constant become bytes."""
    returned = []
    for node, dtype in zip(output.args[0], types, strict=True):  # type: ignore[arg-type]
        known = torch.uint8 if dtype == torch.bool else dtype
        if node.meta["val"].dtype == torch.bool and is_constant(node):
            node = _converted(output, node, known)
        same = node.meta["val"].dtype in (dtype, known)
        returned.append(
            node
            if same
            else insert(output, CONVERT, (node, str(dtype_of(known))), node, f"{node.name}_{dtype_of(known).short}")
        )
    output.args = (tuple(returned),)


def _is_table(node: Node) -> bool:
    """Whether a node is part of constant arithmetic in another type, which keeps PyTorch's operators until
    fold-constants computes it."""
    values = [part.meta["val"] for part in (node, *node.all_input_nodes)]
    return any(isinstance(value, torch.Tensor) and value.dtype != torch.float32 for value in values) and is_constant(
        node
    )


def _read_as_fp32(node: Node) -> None:
    """Constant whole numbers and truth values that a canonical node reads become fp32 in front of it."""
    if node._erased or node.target not in CANONICAL:
        return
    for operand in node.all_input_nodes:
        if operand.meta["val"].dtype != torch.float32:
            node.replace_input_with(operand, _converted(node, operand, torch.float32))
    infer(node)


def _converted(before: Node, constant: Node, dtype: torch.dtype) -> Node:
    """A constant in another type, which fold-constants computes."""
    number = insert(before, _aten._to_copy.default, (constant,), constant, f"{constant.name}_{dtype_of(dtype).short}")
    number.kwargs = {"dtype": dtype}
    infer(number)
    return number
