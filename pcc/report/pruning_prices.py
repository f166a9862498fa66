"""Would it pay to prune a layer, and at which rate? Before any training: by the costs that choose kernels.

The different layers of a network are put side by side in a graph, pruned there by the passes themselves at several
rates, and each is priced where it stands in the network. Weights are those that the network has: a price goes by which
of them are zero, and that hardly changes with training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch.fx import Graph, GraphModule, Node

from pcc.codegen.processor import Processor
from pcc.codegen.select_kernels import OpenLayer, choosing_nodes
from pcc.ir.annotations import StoredOrder, forget, skips
from pcc.ir.graph import arguments, constant, max_batch
from pcc.ir.ops import CONV2D
from pcc.passes.manager import PassManager

RATES = (1.0, 1.25, 2.0, 4.0, 8.0, 16.0)
"""Those that are priced."""


@dataclass(frozen=True)
class RatePrice:
    """A layer pruned at a rate."""

    rate: float
    """The option of the pruning pass; 1 where no pass has one."""
    kept: float
    """The share of the weights that is not zero."""
    family: str
    """The cheapest sparse one."""
    cost: float


@dataclass(frozen=True)
class LayerPrices:
    """What a layer costs pruned, beside the cheapest dense kernel."""

    dense: float
    prices: tuple[RatePrice, ...] = ()
    """By growing rate; those at which a sparse kernel computes the layer."""
    reason: str = ""
    """Why there are none."""

    @property
    def break_even(self) -> RatePrice | None:
        """From where on a sparse kernel is faster than the dense one: the price between those of two rates, by a
        straight line over the weights kept. None where it never is. Where it is at the lowest rate, that price."""
        for before, price in zip((None, *self.prices), self.prices, strict=False):
            if price.cost < self.dense:
                return price if before is None else _between(before, price, self.dense)
        return None


def _between(slower: RatePrice, faster: RatePrice, dense: float) -> RatePrice:
    part = (slower.cost - dense) / (slower.cost - faster.cost)
    kept = slower.kept + part * (faster.kept - slower.kept)
    return RatePrice(max(slower.rate, faster.rate * faster.kept / kept), kept, faster.family, dense)


def pruning_prices(graph_module: GraphModule, passes: Sequence[Any], processor: Processor) -> dict[str, LayerPrices]:
    """The prices of each convolution and linear layer by the name of its node. ``graph_module`` is one whose kernels
    are not chosen, and loses what reorder-kernels noted; ``passes`` prune."""
    rates = RATES if any(hasattr(step, "rate") for step in passes) else RATES[:1]
    kinds = alike(graph_module)
    first = {signature: OpenLayer.of(nodes[0], max_batch(graph_module) or 1) for signature, nodes in kinds.items()}
    dense = {signature: float(layer.priced(processor)[0][0].cost) for signature, layer in first.items()}
    prices: dict[str, list[RatePrice]] = {signature: [] for signature in kinds}
    reasons = dict.fromkeys(kinds, "the passes that prune cut convolutions")
    for rate in rates:
        pruned = _prune(_side_by_side([layer.node for layer in first.values()]), [_at(step, rate) for step in passes])
        for signature, layer in first.items():
            cut = pruned.get(layer.node.name)
            if isinstance(cut, str):
                reasons[signature] = cut
            elif cut is not None:
                found, rejected = layer.with_weight(cut).priced(processor, sparse_only=True)
                kept = float(np.count_nonzero(cut) / cut.size)
                prices[signature] += [RatePrice(rate, kept, each.family, float(each.cost)) for each in found[:1]]
                reasons[signature] = next((other.reason for other in rejected), "")
    return {
        node.name: LayerPrices(
            dense[signature], tuple(prices[signature]), "" if prices[signature] else reasons[signature]
        )
        for signature, nodes in kinds.items()
        for node in nodes
    }


def alike(graph_module: GraphModule) -> dict[str, list[Node]]:
    """Layers that cost the same, whatever their weights; what reorder-kernels noted is lost."""
    found: dict[str, list[Node]] = {}
    for node in choosing_nodes(graph_module):
        forget(node, StoredOrder)
        found.setdefault(OpenLayer.of(node, max_batch(graph_module) or 1).signature, []).append(node)
    return found


def _at(step: Any, rate: float) -> Any:
    """A pruning pass at a rate, for all layers alike: each of those side by side is the first one of its network."""
    layers: Any = getattr(step, "layers", None)
    changed = {"rate": rate, "spare_first": False, "layers": {} if isinstance(layers, Mapping) else layers}
    return replace(step, **{field: value for field, value in changed.items() if hasattr(step, field)})


def _side_by_side(layers: Sequence[Node]) -> GraphModule:
    """The layers with inputs of their own, which the graph returns; their weights are copies, in fp32."""
    graph, weights, columns = Graph(), {}, []
    for layer in layers:
        copies = {
            operand: _operand(graph, operand, f"{layer.name}_{place}", weights)
            for place, operand in enumerate(layer.all_input_nodes)
        }
        columns.append(graph.node_copy(layer, copies.__getitem__))
    graph.output(tuple(columns))
    graph_module = GraphModule({}, Graph())
    for name, value in weights.items():
        graph_module.register_buffer(name, value)
    graph_module.graph = graph
    return graph_module


def _operand(graph: Graph, operand: Node, name: str, weights: dict[str, Any]) -> Node:
    if operand.op == "get_attr":
        weights[name] = constant(operand).float().clone()
        node = graph.get_attr(name)
    else:
        node = graph.placeholder(name)
    node.meta["val"] = operand.meta["val"].float()
    return node


def _prune(graph_module: GraphModule, passes: Sequence[Any]) -> dict[str, np.ndarray | str]:
    """The weight of each convolution after the passes, or why they leave it alone."""
    graph_module = PassManager(passes)(graph_module).graph_module
    return {
        node.name: _cut(node, {step.name for step in passes})
        for node in graph_module.graph.find_nodes(op="call_function", target=CONV2D)
    }


def _cut(node: Node, passes: set[str]) -> np.ndarray | str:
    """Left alone is what every pass left alone."""
    reasons = [skip.reason for skip in skips(node) if skip.pass_name in passes]
    return reasons[0] if len(reasons) == len(passes) else constant(arguments(node)["weight"]).numpy()
