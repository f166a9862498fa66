"""Options that take input channels from a layer: the filters that make these channels, of the layers that feed it, go
with them ("Channel Pruning for Accelerating Very Deep Neural Networks", He et al., ICCV 2017).

What is left is a smaller dense network. The layer that lost inputs is fitted again; the layers that feed it keep the
weights of the filters that stay, so the error is all in one layer and the gain is in several.
"""

from collections import Counter
from collections.abc import Collection

from torch.fx import GraphModule

from pcc.compression.options import Database, Option
from pcc.compression.recipe import written
from pcc.ir.graph import arguments, layer_name, shape_of
from pcc.passes.drop_filters import feeders
from pcc.sparsity.filters import Channel

RATES = (1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 12.0, 24.0, 48.0)
MULTIPLE = 16
"""Of channels that stay: whole registers of every processor."""


def with_channels(layers: Database, graph_module: GraphModule, known: Collection[str]) -> Database:
    """The layers with such options, where they are ``known`` by their names and nothing else reads what they read."""
    runs = Counter(layer_name(node) for node in graph_module.graph.nodes if node.op == "call_function")
    found = dict(layers)
    for node, behind in feeders(graph_module).items():
        name, names = layer_name(node), tuple(layer_name(each) for each in behind)
        if name in known and all(runs[each] == 1 and each in layers for each in (name, *names)):
            layer, inputs = layers[name], shape_of(arguments(node)["weight"])[1]
            options = [_option(layer.dense, rate, inputs, names) for rate in RATES]
            fewer = {option.channels: option for option in reversed(options) if option.channels < 1}  # the least rate
            found[name] = layer.model_copy(update={"options": (*layer.options, *reversed(fewer.values()))})
    return found


def _option(dense: Option, rate: float, inputs: int, names: tuple[str, ...]) -> Option:
    """A layer that reads fewer of its ``inputs``; it takes as much less as it reads less."""
    structure = Channel(rate, MULTIPLE)
    channels = structure.left_of(inputs) / inputs
    return dense.model_copy(
        update={
            "structure": written(structure),
            "cost": dense.cost * channels,
            "macs": round(dense.macs * channels),
            "bytes": round(dense.bytes * channels),
            "channels": channels,
            "feeders": names,
        }
    )
