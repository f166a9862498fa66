"""How the layers of a network are wired: who reads a layer's feature maps, and what stands between.

A feature map can be taken away where every path from its layer ends in convolutions and linear layers and passes only what works on each channel alone
and keeps zeros: batch norms, activations, pooling, depthwise convolutions. Maps that are added to others (shortcuts), concatenated or returned are tied to
more than their layer, and no filter of theirs is taken away.
"""

import operator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import fx, nn

from pcc.errors import PccError
from pcc.training.layers import prunable

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)

_MODULES = (
    *NORMS,
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.ELU, nn.Tanh, nn.Hardswish),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
    *(nn.Dropout, nn.Dropout2d, nn.Flatten, nn.Identity),
)
_FUNCTIONS = (
    *(F.relu, torch.relu, F.relu6, F.leaky_relu, F.silu, F.gelu, F.hardswish),
    *(F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d),
    *(F.dropout, torch.flatten),
)
_METHODS = ("relu", "relu_", "flatten", "contiguous")


@dataclass(frozen=True)
class Reader:
    """A layer that reads feature maps."""

    name: str
    module: nn.Conv2d | nn.Linear
    span: int
    """Inputs that one map gives: its height times width where it is flattened into a linear layer, else 1."""


@dataclass(frozen=True)
class Source:
    """A layer whose feature maps can be taken away."""

    name: str
    module: nn.Conv2d | nn.Linear
    between: tuple[nn.Module, ...]
    """Batch norms and depthwise convolutions on the way to the readers: what would make something of a zero map."""
    readers: tuple[Reader, ...]

    @property
    def filters(self) -> int:
        return len(self.module.weight)

    @torch.no_grad()
    def unread(self) -> torch.Tensor:
        """Which maps no reader uses: bool (filters,)."""
        used = torch.zeros(self.filters, dtype=torch.bool, device=self.module.weight.device)
        for reader in self.readers:
            used |= per_channel(connection_norms(reader.module.weight, self._connections(reader)), groups_of(reader.module)) > 0
        return ~used

    @torch.no_grad()
    def silence(self, dead: torch.Tensor) -> None:
        """Makes the maps of ``dead`` filters, bool (filters,), zero wherever they are read, and zero what reads them, so that training cannot wake them."""
        for part in (self.module, *self.between):
            for values in (part.weight, part.bias):
                if isinstance(values, torch.Tensor):
                    values[dead] = 0
        for reader in self.readers:
            alive = per_connection(~dead, len(reader.module.weight), groups_of(reader.module))
            reader.module.weight.mul_(per_weight(alive, reader.module.weight))

    def _connections(self, reader: Reader) -> int:
        return self.filters // groups_of(reader.module)


class Wiring:
    """The wiring of a model, as `torch.fx` traces it. `PccError` if it cannot."""

    def __init__(self, model: nn.Module) -> None:
        self.graph = _trace(model)
        self.modules: dict[str, nn.Module] = dict(model.named_modules())
        calls: dict[str, list[fx.Node]] = {name: [] for name in prunable(model)}
        for node in self.graph.nodes:
            if node.op == "call_module" and node.target in calls:
                calls[str(node.target)].append(node)
        order = {node: position for position, node in enumerate(self.graph.nodes)}
        self.nodes = {name: nodes[0] for name, nodes in sorted(calls.items(), key=lambda call: order[call[1][0]] if call[1] else -1) if len(nodes) == 1}
        """The call of each prunable layer, in order of execution; layers that are called never or more than once are left out."""
        self.sources = {source.name: source for name in self.nodes if (source := self._source(name))}
        """Layers whose maps can be taken away, in order of execution."""

    def reads_input(self, name: str) -> bool:
        """Whether the network's input reaches the layer past no other one."""
        waiting, seen = list(self.nodes[name].all_input_nodes), set()
        while waiting:
            node = waiting.pop()
            if node.op == "placeholder":
                return True
            if node not in seen and not isinstance(self.module(node), nn.Conv2d | nn.Linear):
                waiting += node.all_input_nodes
            seen.add(node)
        return False

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def keeps_zeros(self, node: fx.Node) -> bool:
        """Whether what a node does works on each channel alone and makes zeros of zeros, but for the shift of a batch norm."""
        if node.op == "call_module":
            return isinstance(self.module(node), _MODULES)
        if node.op == "call_function":
            return node.target in _FUNCTIONS or (node.target is torch.mean and _spatial(node))
        return node.op == "call_method" and (node.target in _METHODS or (node.target == "mean" and _spatial(node)))

    def _source(self, name: str) -> Source | None:
        layer = self.modules[name]
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        channels, between, readers = len(layer.weight), [], []
        waiting = list(self.nodes[name].users)
        while waiting:
            node = waiting.pop(0)
            module = self.module(node)
            if self.nodes.get(str(node.target)) is node:
                assert isinstance(module, nn.Conv2d | nn.Linear)
                inputs = module.in_features if isinstance(module, nn.Linear) else module.in_channels
                readers.append(Reader(str(node.target), module, inputs // channels))
                continue
            depthwise = isinstance(module, nn.Conv2d) and module.groups == module.in_channels == module.out_channels
            if not depthwise and not self.keeps_zeros(node):
                return None
            if depthwise or isinstance(module, NORMS):
                assert module is not None
                between.append(module)
            waiting += node.users
        return Source(name, layer, tuple(between), tuple(readers)) if readers else None


def groups_of(module: nn.Conv2d | nn.Linear) -> int:
    return module.groups if isinstance(module, nn.Conv2d) else 1


def connection_norms(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """Norm of every connection, (O, channels), of a weight (O, channels, kh, kw) or (O, channels * span)."""
    return weight.reshape(len(weight), channels, -1).norm(dim=2)


def per_channel(norms: torch.Tensor, groups: int) -> torch.Tensor:
    """Norm of all that reads a channel, (I,), from norms of connections (O, I/groups)."""
    return norms.reshape(groups, -1, norms.shape[1]).norm(dim=1).flatten()


def per_connection(values: torch.Tensor, filters: int, groups: int) -> torch.Tensor:
    """What holds for a channel, (I,), for every connection that reads it: (O, I/groups)."""
    return values.reshape(groups, 1, -1).expand(-1, filters // groups, -1).reshape(filters, -1)


def per_weight(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """What holds for a connection, (O, channels), in a shape that broadcasts to a weight (O, channels, kh, kw) or (O, channels * span)."""
    return values[:, :, None, None] if weight.ndim == 4 else values.repeat_interleave(weight.shape[1] // values.shape[1], dim=1)


def is_sum(node: fx.Node) -> bool:
    """Whether a node adds maps to maps."""
    return node.target in (operator.add, operator.iadd, torch.add, "add", "add_") and all(isinstance(one, fx.Node) for one in node.args)


class _Tracer(fx.Tracer):
    """Convolutions of one's own class (with another padding) are layers too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d | nn.Linear) or super().is_leaf_module(m, module_qualified_name)


def _trace(model: nn.Module) -> fx.Graph:
    try:
        return _Tracer().trace(model)
    except Exception as error:  # whatever a forward does with a proxy
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PccError(f"cannot follow the feature maps of {type(model).__name__}: torch.fx cannot trace its forward ({reason})") from None


def _spatial(node: fx.Node) -> bool:
    """Whether a mean is taken over height and width alone."""
    dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    return isinstance(dims, tuple | list) and sorted(int(str(dim)) % 4 for dim in dims) == [2, 3]
