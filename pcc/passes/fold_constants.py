"""fold-constants: what is known when compiling is computed then."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg
from torch.fx.passes.infra.pass_base import PassResult
from torch.utils import _pytree as pytree

from pcc.ir.annotations import Skipped, annotate
from pcc.ir.graph import add_constant, constant, finish, is_random
from pcc.ir.ops import CANONICAL, UNPACK
from pcc.passes.operands import share_constants

LARGEST_GROWTH = 1 << 20
"""Bytes by which what a kernel computes may exceed what it is computed from: broadcasting a constant over an image is
cheaper done when it is read."""


@dataclass(frozen=True)
class FoldConstants:
    """Computes subgraphs of constants now, drops constants nobody reads, and stores equal constants once."""

    name: ClassVar[str] = "fold-constants"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: GraphModule) -> PassResult:
        before = _text(graph_module)
        self._evaluate(graph_module)
        finish(graph_module)
        share_constants(graph_module)
        finish(graph_module)
        return PassResult(graph_module, _text(graph_module) != before)

    def _evaluate(self, graph_module: GraphModule) -> None:
        values: dict[Node, Any] = {}
        spread: dict[Node, int] = {}  # bytes of what results are computed from that are too large to be stored

        def value_of(node: Node) -> Any:
            if node not in values:  # something that is computed now reads a large result, after all
                values[node] = _computed(node, value_of)
            return values[node]

        for node in graph_module.graph.nodes:
            if node.op == "get_attr":
                values[node] = constant(node)
            elif _is_folded(node) and all(operand in values or operand in spread for operand in node.all_input_nodes):
                source = sum(
                    spread[operand] if operand in spread else _bytes(values[operand])
                    for operand in node.all_input_nodes
                )
                growth = _bytes(node.meta["val"]) - source
                if node.target in CANONICAL and growth > LARGEST_GROWTH:
                    spread[node] = source
                    reason = f"the result would be {growth >> 20} MiB larger than what it is computed from"
                    annotate(node, Skipped(self.name, reason))
                else:
                    values[node] = _computed(node, value_of)
        stored = {node: value for node, value in values.items() if node not in spread}
        for node, value in stored.items():
            if (
                node.op == "call_function"
                and isinstance(value, Tensor)
                and any(user not in stored for user in node.users)
            ):
                # A copy: the value may be a view that would keep a larger tensor alive.
                node.replace_all_uses_with(add_constant(node, node.name, value.clone()))


def _is_folded(node: Node) -> bool:
    """Whether a call is computed now if its operands are known; weights stay packed, for the kernels that were chosen
    for them."""
    return node.op == "call_function" and node.target is not UNPACK and not is_random(node)


def _computed(node: Node, value_of: Callable[[Node], Any]) -> Any:
    with torch.no_grad():
        return node.target(*map_arg(node.args, value_of), **map_arg(node.kwargs, value_of))  # type: ignore[operator]


def _bytes(value: Any) -> int:
    return sum(part.numel() * part.element_size() for part in pytree.tree_leaves(value) if isinstance(part, Tensor))


def _text(graph_module: GraphModule) -> tuple[str, tuple[str, ...]]:
    return str(graph_module.graph), tuple(
        name for name, _ in (*graph_module.named_parameters(), *graph_module.named_buffers())
    )
