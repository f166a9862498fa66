"""What the pruning passes share: which layers they may cut, and one projection on all structures that a layer has been
given.

A pruning pass adds a structure of `pcc.sparsity` to those in the layer's `Pruned` annotation and projects the *dense*
weight, which the annotation keeps, on all of them at once. So ``prune-pattern,prune-connectivity`` and
``prune-connectivity,prune-pattern`` give the same weights, the nearest that have both properties, with any sharing
between filters. Where a pass in between has changed the weight, what it made of it is projected instead.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult

from pcc.errors import PccError, suggestion
from pcc.ir.annotations import Skipped, StoredOrder, annotate, annotation, forget
from pcc.ir.channels import LAYERS
from pcc.ir.graph import arguments, constant, finish, layer_name
from pcc.ir.ops import CONV2D
from pcc.passes.operands import set_constant
from pcc.sparsity.compose import Composition
from pcc.sparsity.kernels import Kernels
from pcc.sparsity.slices import Slices
from pcc.sparsity.structure import Structure
from pcc.sparsity.structures import compose

SPARED = "the first convolution is spared (spare_first=false prunes it too)"
"""Why a pruning pass left the first convolution alone."""


@dataclass(frozen=True)
class Pruned:
    """How a layer's weight was cut, all pruning passes together."""

    dense: np.ndarray = field(repr=False, compare=False)
    """The weight before any of them, (O, I/groups, kh, kw) or (O, I)."""
    structure: Structure
    """What they asked for."""
    kept_norm: float = field(default=1.0, compare=False)
    """Part of the dense weight's squared norm that is left."""

    def __str__(self) -> str:
        return f"pruned({self.structure}, norm={self.kept_norm:.1%})"


@dataclass(frozen=True)
class PruneLayers(ABC):
    """A pass that gives layers one structure with a rate."""

    name: ClassVar[str]
    exact: ClassVar[bool] = False
    counted: ClassVar[str]
    """What becomes fewer by the rate: connections, filters, ..."""
    targets: ClassVar[tuple[Any, ...]] = LAYERS
    """The operators that it prunes."""

    rate: float = 2.0
    spare_first: bool = True
    layers: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for where, rate in (("", self.rate), *((f" for layer {name}", rate) for name, rate in self.layers.items())):
            if not 1 <= rate < float("inf"):
                raise PccError(
                    f"{self.name}: a rate of {rate:g}{where} is not possible: it is the factor by which {self.counted} "
                    "become fewer, 1 or more"
                )

    @abstractmethod
    def structure(self, layer: Node, rate: float) -> Structure:
        """What a layer gets."""

    @abstractmethod
    def count(self, layer: Node) -> int:
        """How many there are of what becomes fewer."""

    def unfit(self, layers: list[Node]) -> dict[Node, str]:
        """Layers that the pass is not for, and why."""
        return {layer: reason for layer in layers if (reason := why_not(layer))}

    def __call__(self, graph_module: GraphModule) -> PassResult:
        layers = [node for node in graph_module.graph.nodes if node.target in self.targets]
        check_names(self.layers, layers)
        unfit = self.unfit(layers)
        first = first_convolutions(graph_module) if self.spare_first else set()
        reasons = unfit | {
            layer: SPARED
            for layer in layers
            if layer in first and layer not in unfit and layer_name(layer) not in self.layers
        }
        beyond = [layer for layer in layers if layer not in reasons and self._rate(layer) > self.count(layer)]
        reasons |= {
            layer: f"it has {self.count(layer)} {self.counted}, fewer than its rate of {self._rate(layer):g}"
            for layer in beyond
        }
        wanted = {layer: self.structure(layer, self._rate(layer)) for layer in layers if layer not in reasons}
        reasons |= {layer: reason for layer, structure in wanted.items() if (reason := clash(layer, structure))}
        for layer, reason in reasons.items():
            if layer_name(layer) in self.layers:
                raise PccError(f"layer {layer_name(layer)} cannot lose {self.counted}: {reason}")
            annotate(layer, Skipped(self.name, reason))
        if beyond and not wanted:
            largest = max(beyond, key=self.count)
            text = f"the largest, {layer_name(largest)}, has {self.count(largest)} {self.counted}"
            raise PccError(f"no layer can be pruned at a rate of {self.rate:g}: {text}")
        return PassResult(
            graph_module,
            cut(
                graph_module,
                {layer: structure for layer, structure in wanted.items() if layer not in reasons},
                self.name,
            ),
        )

    def _rate(self, layer: Node) -> float:
        return self.layers.get(layer_name(layer), self.rate)


@dataclass(frozen=True)
class PruneSlices(PruneLayers):
    """A pass that takes away slices of one kind, whose number that stays is rounded up to a ``multiple``."""

    kind: ClassVar[type[Slices]]

    multiple: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.kind(1, self.multiple)  # refuses multiples below 1

    def structure(self, layer: Node, rate: float) -> Slices:
        return self.kind(rate, self.multiple)


def convolutions(graph_module: GraphModule) -> list[Node]:
    """The graph's convolutions that still have a dense weight, in order."""
    return list(graph_module.graph.find_nodes(op="call_function", target=CONV2D))


def layer_weight(layer: Node) -> np.ndarray:
    """The weight of a convolution, (O, I/groups, kh, kw), or of a linear layer, (O, I)."""
    return constant(weight_node(layer)).numpy()


def weight_node(layer: Node) -> Node:
    return arguments(layer)["weight"]


def groups_of(layer: Node) -> int:
    return arguments(layer).get("groups", 1)


def why_not(layer: Node) -> str | None:
    """Why no pruning pass may cut a layer; None if it may."""
    if weight_node(layer).op != "get_attr":
        return "its weight is computed, not a constant (fold-constants comes before pruning)"
    if groups_of(layer) > 1 and layer_weight(layer).shape[1] == 1:
        return "depthwise: a filter has one connection, and the depthwise kernels are dense"
    return None


def dense_weight(layer: Node) -> np.ndarray:
    """The weight as it was before pruning passes cut it; the weight itself where none did, or where it was changed
    since."""
    pruned, current = annotation(layer, Pruned), layer_weight(layer)
    if pruned is None or pruned.dense.shape != current.shape or ((current != 0) & (current != pruned.dense)).any():
        return current
    return pruned.dense


def clash(layer: Node, added: Structure) -> str | None:
    """Why a layer cannot have a structure beside those that passes gave it before; None if it can."""
    pruned = annotation(layer, Pruned)
    try:
        combined(pruned.structure if pruned else None, added)
    except PccError:
        assert pruned is not None
        return f"it has {pruned.structure}, which does not go with {added}"
    return None


def combined(before: Structure | None, added: Structure) -> Structure:
    """Both structures as one: patterns and connections join, the same kind again replaces the first, others are
    composed, coarse ones first.

    Raises `PccError` where they do not go together.
    """
    parts = [] if before is None else list(before.parts) if isinstance(before, Composition) else [before]
    for part in parts:
        if isinstance(part, Kernels) and isinstance(added, Kernels):
            patterns, connections = (added, part) if added.patterns else (part, added)
            added = replace(connections, patterns=patterns.patterns, kernel=patterns.kernel)
    others = [part for part in parts if type(part) is not type(added)]
    return compose(sorted([*others, added], key=lambda part: not isinstance(part, Slices)))


def cut(graph_module: GraphModule, wanted: Mapping[Node, Structure], pass_name: str) -> bool:
    """Gives layers the weights nearest to their dense ones that have a structure, beside those they were given before;
    True if any is changed.

    Layers that read one weight (a module called twice) read one weight afterwards.
    """
    weights: dict[tuple[str, int, Structure], Node] = {}
    before = {layer: layer_weight(layer) for layer in wanted}
    for layer, added in wanted.items():
        old, dense, earlier = weight_node(layer), dense_weight(layer), annotation(layer, Pruned)
        try:
            structure = combined(earlier.structure if earlier else None, added)
            projected = structure.project(dense, groups_of(layer))
        except PccError as error:
            raise PccError(f"layer {layer_name(layer)}: {error}") from error
        key = (str(old.target), groups_of(layer), structure)
        if key in weights:
            layer.replace_input_with(old, weights[key])
        else:
            set_constant(layer, "weight", old, torch.from_numpy(np.ascontiguousarray(projected)), str(old.target))
            weights[key] = weight_node(layer)
        forget(layer, Structure)
        forget(layer, StoredOrder)
        annotate(layer, Pruned(dense, structure, _norm(projected) / max(_norm(dense), np.finfo(np.float64).tiny)))
    unchanged = [layer for layer, weight in before.items() if np.array_equal(weight, layer_weight(layer))]
    for layer in unchanged:
        annotate(layer, Skipped(pass_name, "its weights are as they were: nothing in them is more than the pass keeps"))
    finish(graph_module)
    return len(unchanged) < len(wanted)


def _norm(weight: np.ndarray) -> float:
    return float(np.square(weight, dtype=np.float64).sum())


def check_names(names: Iterable[str], layers: Iterable[Node]) -> None:
    """Raises `PccError` for a layer name that no layer has. A layer's name is the path of its module,
    ``layer1.0.conv1``."""
    known = tuple(dict.fromkeys(layer_name(layer) for layer in layers))
    for name in names:
        if name not in known:
            raise PccError(f"no layer that can be pruned is called '{name}': {suggestion(name, known)}")


def first_convolutions(graph_module: GraphModule) -> set[Node]:
    """Convolutions whose input comes from the model's inputs without passing another convolution or a linear layer."""
    behind: set[Node] = set()
    first = set()
    for node in graph_module.graph.nodes:
        after = any(operand in behind or operand.target in LAYERS for operand in node.all_input_nodes)
        if after:
            behind.add(node)
        elif node.target is CONV2D:
            first.add(node)
    return first
