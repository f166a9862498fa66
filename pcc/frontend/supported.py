"""What pcc compiles: after canonicalize nothing else may be left. What is left is one error that names all of it."""

import operator
from math import prod
from typing import TYPE_CHECKING

from torch.fx import GraphModule, Node

from pcc.dtype import DTYPES, full_name
from pcc.errors import PccError
from pcc.frontend.advice import advice
from pcc.frontend.source_lines import line_of_node
from pcc.ir.annotations import skips
from pcc.ir.graph import is_constant, layer_name, outputs, shape_of
from pcc.ir.ops import CANONICAL

if TYPE_CHECKING:
    from pcc.passes.manager import PassEvent


def check_supported(graph_module: GraphModule) -> None:
    """`PccError` listing every node of a canonical graph that pcc cannot compile: operator, node, where in the model,
    why.

    Nodes computed from constants alone are fine, whatever they are: fold-constants evaluates them.
    """
    _check_constant_outputs(graph_module)
    left = [
        node
        for node in graph_module.graph.nodes
        if node.op == "call_function" and (_is_foreign(node) or _is_empty(node))
    ]
    if left:
        raise PccError(
            f"pcc cannot compile {len(left)} operator{'s' if len(left) > 1 else ''} of this model: "
            f"{'; '.join(map(_describe, left))}"
        )


def refuse_unsupported(event: "PassEvent") -> None:
    """`check_supported` as an instrument of the pass manager: right after canonicalize, before later passes meet what
    they do not know."""
    if event.step.name == "canonicalize":
        check_supported(event.graph_module)


def _check_constant_outputs(graph_module: GraphModule) -> None:
    """`PccError` for an output that is known when compiling and that a library could not give: it is empty, or of
    numbers that pcc does not have."""
    for name, node in outputs(graph_module).items():
        value = node.meta["val"]
        dtype = full_name(value.dtype)
        if is_constant(node) and (dtype not in (*DTYPES, "bool") or not value.numel()):
            kind = f"{dtype}[{','.join(map(str, value.shape))}]"
            raise PccError(
                f"output '{name}' is the same for every input, and {kind}: leave it out of the model's outputs"
            )


def _is_foreign(node: Node) -> bool:
    """Neither known nor constant. The getitems of an operator with several results are left to that operator."""
    return node.target not in CANONICAL and node.target is not operator.getitem and not is_constant(node)


def _is_empty(node: Node) -> bool:
    return node.target in CANONICAL and not prod(shape_of(node))


def _describe(node: Node) -> str:
    reasons = [skip.reason for skip in skips(node) if skip.pass_name in ("decompose", "canonicalize")]
    reasons += [f"its result is empty, {'x'.join(map(str, shape_of(node)))}"] if _is_empty(node) else []
    reasons += [
        advice(node.target) or "pcc does not know it: write it with other operators, or end the model before it"
    ]
    place = [
        f"node {node.name}",
        *([f"in {layer_name(node)}"] if layer_name(node) != node.name else []),
        *([f"at {line}"] if (line := line_of_node(node)) else []),
    ]
    return f"{node.target} ({', '.join(place)}: {reasons[0]})"
