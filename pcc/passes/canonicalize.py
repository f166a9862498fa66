"""One form for each thing a CNN does: ATen becomes ``pcc::`` operators and six kinds of data movement. The rules are in `pcc.passes.canonical`."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch.fx import GraphModule
from torch.fx.passes.infra.pass_base import PassResult

from pcc.ir.annotations import Skipped, annotate
from pcc.ir.graph import finish
from pcc.passes.canonical import CannotCompile, Rule, apply_rule, layers, moves, pointwise

RULES: dict[Any, Rule] = {**moves.RULES, **pointwise.RULES, **layers.RULES}


@dataclass(frozen=True)
class Canonicalize:
    """Rewrites ATen operators to pcc's own: convolutions, pools, elementwise expressions, one reshape; drops dropout, copies and no-ops."""

    name: ClassVar[str] = "canonicalize"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: GraphModule) -> PassResult:
        before = str(graph_module.graph)
        # Producers come before their users, so a rule sees operands that are canonical already.
        for node in list(graph_module.graph.nodes):
            rule = RULES.get(node.target) if node.op == "call_function" and not node._erased else None
            try:
                if rule is not None:
                    apply_rule(rule, node)
            except CannotCompile as error:
                annotate(node, Skipped(self.name, str(error)))
        finish(graph_module)
        return PassResult(graph_module, str(graph_module.graph) != before)
