"""What each layer costs in every structure it may take, by the costs that choose kernels on the target's processor.

The kernels are those that ``select-kernels`` would choose for the layer where it stands in the network: by a tuning
record where there is one, else the cheapest. Costs go by which weights are zero and hardly by their values, so equal
layers that may take the same structures are priced once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.fx import GraphModule, Node

from pcc.codegen.family import family_named
from pcc.codegen.select_kernels import OpenLayer
from pcc.compression.options import LayerOptions, Option
from pcc.compression.recipe import written
from pcc.ir.graph import arguments, layer_name, max_batch, shape_of
from pcc.ir.ops import CONV2D
from pcc.passes.pruning import layer_weight
from pcc.progress import Watch
from pcc.report.pruning_prices import alike
from pcc.sparsity.formats import DENSE, format_named
from pcc.sparsity.kernels import Kernels

LEAST_GAIN = 1.03
"""Options that are less than so many times as fast as the dense layer are left out."""


def priced_layers(
    graph_module: GraphModule,
    choose: Callable[[OpenLayer], tuple[str, float]],
    candidates: Callable[[str, np.ndarray, int], Sequence[Kernels]],
    smaller: bool,
    watch: Watch,
) -> dict[str, LayerOptions]:
    """The options of each layer by its name, without their errors.

    ``graph_module`` is one whose kernels are not chosen; ``choose`` gives the kernel family of a layer and its cycles;
    ``candidates`` what a layer of that name with that weight and groups may take. With ``smaller`` options that are no
    faster stay, if they have fewer weights.
    """
    kinds: dict[tuple[str, bytes, tuple[Kernels, ...]], list[Node]] = {}
    for signature, nodes in alike(graph_module).items():
        for node in nodes:
            weight = layer_weight(node)
            structures = tuple(candidates(layer_name(node), weight, _groups(node)))
            kinds.setdefault((signature, np.packbits(weight == 0).tobytes(), structures), []).append(node)
    found: dict[str, LayerOptions] = {}
    for number, ((_, _, structures), nodes) in enumerate(kinds.items()):
        names = [layer_name(node) for node in nodes]
        watch(f"pricing {names[0]}", number / len(kinds))
        layer = OpenLayer.of(nodes[0], max_batch(graph_module) or 1)
        options = _options(layer, choose, structures, smaller)
        for name in names:
            found[name] = _together(found[name], options) if name in found else LayerOptions(name=name, options=options)
    order = [layer_name(node) for node in graph_module.graph.nodes if node.op == "call_function"]
    return {name: found[name] for name in dict.fromkeys(order) if name in found}


@dataclass(frozen=True)
class _Pruned:
    """What a projection leaves of a layer."""

    structure: Kernels | None
    weight: np.ndarray


def _options(
    layer: OpenLayer,
    choose: Callable[[OpenLayer], tuple[str, float]],
    structures: Sequence[Kernels],
    smaller: bool,
) -> tuple[Option, ...]:
    weight = layer.weights[DENSE]
    dense = _option(layer, _Pruned(None, weight), choose)
    found = [dense]
    for structure in structures:
        pruned = _Pruned(structure, structure.project(weight.astype(np.float32), _groups(layer.node)))
        option = _option(layer.with_weight(pruned.weight), pruned, choose)
        if smaller or option.cost * LEAST_GAIN <= dense.cost:
            found.append(option)
    return tuple(found)


def _option(layer: OpenLayer, pruned: _Pruned, choose: Callable[[OpenLayer], tuple[str, float]]) -> Option:
    family, cost = choose(layer)
    shape = shape_of(layer.node)
    positions = int(np.prod(shape)) // pruned.weight.shape[0]
    kept = int(np.count_nonzero(pruned.weight))
    return Option(
        structure=None if pruned.structure is None else written(pruned.structure),
        cost=cost,
        family=family,
        macs=kept * positions,
        bytes=_bytes(layer, family),
    )


def _bytes(layer: OpenLayer, family: str) -> int:
    """Of the weight in the format that a kernel family reads."""
    format = family_named(family).format
    stored: Any = layer.weights[format]
    if format == DENSE:
        return int(stored.nbytes)
    return sum(int(getattr(stored, name).nbytes) for name in format_named(format).arrays)


def _together(one: LayerOptions, more: Sequence[Option]) -> LayerOptions:
    """A layer that runs several times: the options that it has in every run, costs added, the weight counted once."""
    others: Mapping[str, Option] = {str(option): option for option in more}
    both = [
        option.model_copy(update={"cost": option.cost + other.cost, "macs": option.macs + other.macs})
        for option in one.options
        if (other := others.get(str(option)))
    ]
    return one.model_copy(update={"options": tuple(both)})


def _groups(node: Node) -> int:
    return int(arguments(node)["groups"]) if node.target is CONV2D else 1
