"""What pcc compiles: after canonicalize nothing else may be left. What is left is one error that names all of it."""

import re
from pathlib import PurePath
from typing import TYPE_CHECKING

from torch.fx import GraphModule, Node

from pcc.errors import PccError
from pcc.ir import ops
from pcc.ir.annotations import skips
from pcc.ir.graph import is_constant, layer_name

if TYPE_CHECKING:
    from pcc.passes.manager import PassEvent

SUPPORTED = frozenset(
    {
        *(ops.CONV2D, ops.PATTERN_CONV2D, ops.LINEAR, ops.POOL2D, ops.RESIZE2D, ops.CONCAT, ops.SOFTMAX, ops.ELEMENTWISE),
        *(ops.RESHAPE, ops.PERMUTE, ops.SLICE, ops.EXPAND, ops.PAD, ops.BATCH_NORM),
    }
)


def check_supported(graph_module: GraphModule) -> None:
    """`PccError` listing every node of a canonical graph that pcc cannot compile: operator, node, where in the model, why.

    Nodes computed from constants alone are fine, whatever they are: fold-constants evaluates them.
    """
    left = [node for node in graph_module.graph.nodes if node.op == "call_function" and node.target not in SUPPORTED and not is_constant(node)]
    if left:
        raise PccError(f"pcc cannot compile {len(left)} operator{'s' if len(left) > 1 else ''} of this model: {'; '.join(map(_describe, left))}")


def refuse_unsupported(event: "PassEvent") -> None:
    """`check_supported` as an instrument of the pass manager: right after canonicalize, before later passes meet what they do not know."""
    if event.step.name == "canonicalize":
        check_supported(event.graph_module)


def _describe(node: Node) -> str:
    reasons = [skip.reason for skip in skips(node) if skip.pass_name == "canonicalize"]
    place = [f"node {node.name}", *([f"in {layer_name(node)}"] if layer_name(node) != node.name else []), *([f"at {line}"] if (line := _source(node)) else [])]
    return f"{node.target} ({', '.join(place)}{': ' + reasons[0] if reasons else ''})"


def _source(node: Node) -> str:
    """``model.py:41``, the innermost line of the model's own code."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    own = [f"{PurePath(file).name}:{line}" for file, line in frames if "torch" not in PurePath(file).parts]
    return own[-1] if own else ""
