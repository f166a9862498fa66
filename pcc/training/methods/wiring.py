"""How the layers of a network are wired: who reads a layer's feature maps, and what stands between.

A feature map can be taken away where every path from its layer ends in convolutions and linear layers and passes only
what works on each channel alone and keeps zeros: batch norms, activations, pooling, depthwise convolutions. Maps that
are added to others (shortcuts), concatenated or returned are tied to more than their layer, and no filter of theirs is
taken away. The channel-dependency graph (`pcc.ir.channels`) says which these are.
"""

import copy
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import fx, nn

from pcc.errors import PccError
from pcc.frontend.torch_module import import_module
from pcc.ir.channels import LAYERS, ChannelGraph, computed_operands, flattened, is_constant_layer, is_depthwise
from pcc.ir.graph import arguments, shape_of
from pcc.ir.ops import BATCH_NORM, ELEMENTWISE, PAD, POOL2D, RESHAPE, RESIZE2D
from pcc.passes.manager import PassManager
from pcc.passes.pipeline import parse_pipeline
from pcc.training.layers import groups_of, prunable

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


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
            used |= (
                per_channel(connection_norms(reader.module.weight, self._connections(reader)), groups_of(reader.module))
                > 0
            )
        return ~used

    @torch.no_grad()
    def silence(self, dead: torch.Tensor) -> None:
        """Makes the maps of ``dead`` filters, bool (filters,), zero wherever they are read, and zero what reads them,
        so that training cannot wake them."""
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
    """The wiring of a model, in evaluation mode, for inputs of (C, H, W). `PccError` for a model that pcc cannot
    import."""

    def __init__(self, model: nn.Module, input_shape: tuple[int, int, int]) -> None:
        self.modules: dict[str, nn.Module] = dict(model.named_modules())
        self.graph = _canonical(model, input_shape)
        calls: dict[str, list[fx.Node]] = {name: [] for name in prunable(model)}
        for node in self.graph.graph.nodes:
            if node.target in LAYERS and (name := self.name(node)) in calls:
                calls[name].append(node)
        order = {node: position for position, node in enumerate(self.graph.graph.nodes)}
        single = {name: nodes[0] for name, nodes in calls.items() if len(nodes) == 1}
        self.nodes = dict(sorted(single.items(), key=lambda call: order[call[1]]))
        """The call of each prunable layer, in order of execution; layers that are called never or more than once are
        left out."""
        self.runs = Counter(name for node in self.graph.graph.nodes if (name := self.name(node)))
        """How often each layer and batch norm is called, by module path."""
        self.channels = ChannelGraph(self.graph)
        self.sources = {source.name: source for name in self.nodes if (source := self._source(name))}
        """Layers whose maps can be taken away, in order of execution."""

    def reads_input(self, name: str) -> bool:
        """Whether the network's input reaches the layer past no other one."""
        waiting, seen = list(self.nodes[name].all_input_nodes), set()
        while waiting:
            node = waiting.pop()
            if node.op == "placeholder":
                return True
            if node not in seen and node.target not in LAYERS:
                waiting += node.all_input_nodes
            seen.add(node)
        return False

    def name(self, node: fx.Node) -> str:
        """The module path of a layer or a batch norm; nothing for a call that is none of a module."""
        args = arguments(node) if node.target in (*LAYERS, BATCH_NORM) else {}
        constants = [x for x in (args.get("weight"), args.get("running_mean")) if x is not None]
        return str(constants[0].target).rpartition(".")[0] if constants and constants[0].op == "get_attr" else ""

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.modules.get(self.name(node)) if node.op == "call_function" and self.name(node) else None

    def keeps_zeros(self, node: fx.Node) -> bool:
        """Whether what a node does works on each channel alone and makes zeros of zeros, but for the shift of a batch
        norm."""
        if node.target is ELEMENTWISE:
            operands = [
                torch.zeros(shape_of(x)) if x.op != "get_attr" else torch.ones(shape_of(x))
                for x in arguments(node)["xs"]
            ]
            return len(computed_operands(node)) == 1 and not node.target(operands, arguments(node)["expression"]).any()  # type: ignore[operator]
        if node.target is RESHAPE:
            return flattened(node) is not None
        return node.target in (BATCH_NORM, POOL2D, RESIZE2D) or (node.target is PAD and arguments(node)["value"] == 0)

    def _source(self, name: str) -> Source | None:
        call, layer = self.nodes[name], self.modules[name]
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        if self.channels.why_bound(call):
            return None
        decisions, between, readers = self.channels.decision[self.channels.labels_of[call]], [], []
        behind = {call}
        for node in self.graph.graph.nodes:
            if not behind & set(node.all_input_nodes):
                continue
            module = self.module(node)
            if node in self.channels.readers:
                read = self.channels.decision[self.channels.readers[node]]
                span = len(read) // len(decisions)
                if self.nodes.get(self.name(node)) is not node or not np.array_equal(read, np.repeat(decisions, span)):
                    return None
                assert isinstance(module, nn.Conv2d | nn.Linear)
                readers.append(Reader(self.name(node), module, span))
                continue
            depthwise = node.target in LAYERS and is_constant_layer(node) and is_depthwise(node)
            if depthwise or node.target is BATCH_NORM:
                if module is None or self.runs[self.name(node)] > 1 or shape_of(node)[1] != len(decisions):
                    return None
                between.append(module)
            elif not self.keeps_zeros(node):
                return None
            behind.add(node)
        return Source(name, layer, tuple(between), tuple(readers)) if readers else None


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
    """What holds for a connection, (O, channels), in a shape that broadcasts to a weight (O, channels, kh, kw) or (O,
    channels * span)."""
    return (
        values[:, :, None, None]
        if weight.ndim == 4
        else values.repeat_interleave(weight.shape[1] // values.shape[1], dim=1)
    )


def is_sum(node: fx.Node) -> bool:
    """Whether a node adds maps to maps."""
    return (
        node.target is ELEMENTWISE
        and arguments(node)["expression"] == "add(x0,x1)"
        and len(computed_operands(node)) == 2
    )


def _canonical(model: nn.Module, input_shape: tuple[int, int, int]) -> fx.GraphModule:
    """The graph of canonical operators of a copy of the model, batch norms still in it."""
    try:
        graph_module = import_module(copy.deepcopy(model).cpu(), (torch.zeros(1, *input_shape),))
        return PassManager(parse_pipeline("decompose,canonicalize"))(graph_module).graph_module
    except PccError as error:
        raise PccError(f"cannot follow the feature maps of {type(model).__name__}: {error}") from None
