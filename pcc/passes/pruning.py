"""What the pruning passes share: which convolutions they may cut, and one exact projection on all constraints a layer has been given.

A pruning pass adds its constraint to the layer's `Pruned` annotation and projects the *dense* weight, which the annotation keeps, on all of them at
once (`pcc.sparsity.joint`). So ``prune-pattern,prune-connectivity`` and ``prune-connectivity,prune-pattern`` give the same weights, the nearest that
have both properties, with any sharing between filters. Where a pass in between has changed the weight, what it made of it is projected instead.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch.fx import GraphModule, Node

from pcc.errors import PccError, suggestion
from pcc.ir.annotations import Connectivity, Patterns, Skipped, StoredOrder, Structure, annotate, annotation, forget
from pcc.ir.graph import arguments, constant, finish, layer_name
from pcc.ir.ops import CONV2D, LINEAR
from pcc.passes.operands import set_constant
from pcc.sparsity import connectivity, joint

SPARED = "the first convolution is spared (spare_first=false prunes it too)"
"""Why a pruning pass left the first convolution alone."""


@dataclass(frozen=True)
class Pruned:
    """How a layer's weight was cut, all pruning passes together."""

    dense: np.ndarray = field(repr=False, compare=False)
    """The weight before any of them, (O, I/groups, kh, kw)."""
    patterns: tuple[tuple[int, ...], ...] = ()
    """Patterns of taps a connection may keep; none: all taps."""
    rate: float = 1.0
    """Connections are fewer by this factor."""
    scope: str = "layer"
    share: int = 1
    """Filters that share channels and patterns."""
    kept_norm: float = 1.0
    """Part of the dense weight's squared norm that is left."""

    def __str__(self) -> str:
        pattern = f"patterns={len(self.patterns)}," if self.patterns else ""
        return f"pruned({pattern}rate={self.rate:g},scope={self.scope},share={self.share},norm={self.kept_norm:.1%})"


def convolutions(graph_module: GraphModule) -> list[Node]:
    """The graph's convolutions that still have a dense weight, in order."""
    return list(graph_module.graph.find_nodes(op="call_function", target=CONV2D))


def convolution_weight(conv: Node) -> np.ndarray:
    """The weight of a convolution, (O, I/groups, kh, kw)."""
    return constant(weight_node(conv)).numpy()


def weight_node(conv: Node) -> Node:
    return arguments(conv)["weight"]


def groups_of(conv: Node) -> int:
    return arguments(conv)["groups"]


def why_not(conv: Node) -> str | None:
    """Why no pruning pass may cut a convolution; None if it may."""
    if weight_node(conv).op != "get_attr":
        return "its weight is computed, not a constant (fold-constants comes before pruning)"
    if groups_of(conv) > 1 and convolution_weight(conv).shape[1] == 1:
        return "depthwise: a filter has one connection, and the depthwise kernels are dense"
    return None


def dense_weight(conv: Node) -> np.ndarray:
    """The weight as it was before pruning passes cut it; the weight itself where none did, or where it was changed since."""
    pruned, current = annotation(conv, Pruned), convolution_weight(conv)
    if pruned is None or pruned.dense.shape != current.shape or ((current != 0) & (current != pruned.dense)).any():
        return current
    return pruned.dense


def constrain(conv: Node, **constraint: object) -> Pruned:
    """The annotation of a convolution with constraints added, or replaced: ``patterns``, or ``rate``, ``scope`` and ``share``."""
    return replace(annotation(conv, Pruned) or Pruned(np.empty(0)), dense=dense_weight(conv), **constraint)


def cut(graph_module: GraphModule, wanted: dict[Node, Pruned], pass_name: str) -> bool:
    """Gives convolutions the weights nearest to their dense ones that fulfil the constraints, and annotates what they are now; True if any is changed.

    Convolutions that read one weight (a module called twice) read one weight afterwards.
    """
    weights: dict[tuple[str, int, Pruned], Node] = {}
    before = {conv: convolution_weight(conv) for conv in wanted}
    for conv, pruned in wanted.items():
        old = weight_node(conv)
        patterns = np.array(pruned.patterns, dtype=np.int32) if pruned.patterns else None
        found = joint.project(pruned.dense, patterns, pruned.rate, scope=pruned.scope, share=pruned.share, groups=groups_of(conv))
        key = (str(old.target), groups_of(conv), pruned)
        if key in weights:
            conv.replace_input_with(old, weights[key])
        else:
            set_constant(conv, "weight", old, torch.from_numpy(found.weight), str(old.target))
            weights[key] = weight_node(conv)
        connections, kept = found.choice.size, int((found.choice >= 0).sum())
        structure = Patterns(pruned.patterns, pruned.share, connections, kept) if pruned.patterns else Connectivity(pruned.share, connections, kept)
        forget(conv, Structure)
        forget(conv, StoredOrder)
        annotate(conv, structure)
        annotate(conv, replace(pruned, kept_norm=found.kept))
    unchanged = [conv for conv, weight in before.items() if np.array_equal(weight, convolution_weight(conv))]
    for conv in unchanged:
        annotate(conv, Skipped(pass_name, "its weights are as they were: nothing in them is more than the pass keeps"))
    finish(graph_module)
    return len(unchanged) < len(wanted)


def largest_share(share: int, filters: int, groups: int) -> int:
    """The largest number of filters up to ``share`` that may share, given how many filters there are."""
    return max(one for one in connectivity.SHARES if one <= share and (filters // groups) % one == 0)


def check_names(names: Iterable[str], convs: Iterable[Node]) -> None:
    """Raises `PccError` for a layer name that no convolution has. A convolution's name is the path of its module, ``layer1.0.conv1``."""
    known = tuple(dict.fromkeys(layer_name(conv) for conv in convs))
    for name in names:
        if name not in known:
            raise PccError(f"no convolution is called '{name}': {suggestion(name, known)}")


def first_convolutions(graph_module: GraphModule) -> set[Node]:
    """Convolutions whose input comes from the model's inputs without passing another convolution or a linear layer."""
    behind: set[Node] = set()
    first = set()
    for node in graph_module.graph.nodes:
        after = any(operand in behind or operand.target in (CONV2D, LINEAR) for operand in node.all_input_nodes)
        if after:
            behind.add(node)
        elif node.target is CONV2D:
            first.add(node)
    return first
