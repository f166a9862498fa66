"""The layers of a network as they are tuned: each by itself, equal ones once."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch.fx import GraphModule

from pcc.codegen.kernels.pool import emit_pool
from pcc.codegen.layers import PooledConv2d
from pcc.codegen.program import ProgramBuilder, View
from pcc.codegen.select_kernels import OpenLayer, choosing_nodes
from pcc.codegen.tuning_records import Key
from pcc.ir.graph import layer_name


@dataclass(frozen=True)
class NetworkLayer:
    """A convolution or linear layer of a network, with the max pool after it where a kernel may compute both."""

    key: Key
    open: OpenLayer = field(repr=False, compare=False)
    names: tuple[str, ...] = field(compare=False)
    """Of all layers that are equal to it."""

    def __str__(self) -> str:
        return self.names[0] + (f" and {len(self.names) - 1} more" if len(self.names) > 1 else "")

    @property
    def weight_bytes(self) -> int:
        return self.open.weights["dense"].nbytes

    def emit(self, b: ProgramBuilder, name: str, family: str, schedule: object) -> None:
        """Records the layer with an input and an output of its own, and the max pool unless the family computes it."""
        chosen, layer = next(taker for taker in self.open.takers() if taker[0].name == family)
        assert not isinstance(layer, str), layer
        b.layer = name
        residual = None if layer.residual is None else _placed(b, f"{name}_residual", layer.residual)
        placed = replace(
            layer, name=name, x=_placed(b, f"{name}_x", layer.x), y=_placed(b, f"{name}_y", layer.y), residual=residual
        )
        chosen.emit(placed, schedule, b)
        pool = self.open.separate_pool()
        if pool is not None and not isinstance(layer, PooledConv2d):
            emit_pool(replace(pool, x=placed.y, y=_placed(b, f"{name}_pooled", pool.y)), b)


def _placed(b: ProgramBuilder, name: str, view: View) -> View:
    """A tensor of its own with a view's shape and strides."""
    return b.strided(name, view.shape, view.strides, 0, view.shape[0] * view.strides[0], view.dtype)


def network_layers(graph_module: GraphModule, processor: str) -> Sequence[NetworkLayer]:
    """Those of a graph whose kernels are not chosen yet; ``processor`` is a `pcc.config.processor_words`."""
    found: dict[Key, NetworkLayer] = {}
    for node in choosing_nodes(graph_module):
        open_layer = OpenLayer.of(node, 1)
        key = open_layer.key(processor)
        first = found.setdefault(key, NetworkLayer(key, open_layer, ()))
        found[key] = replace(first, names=(*first.names, layer_name(node)))
    return list(found.values())
