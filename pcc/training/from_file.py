"""A model from a file, ready to be trained: its convolutions, linear layers and batch norms become PyTorch's modules,
for any number of samples at once.

What else has weights in the file (recurrent layers, PReLU, layer norms) computes what it did, with weights that stay. A
file is imported for two samples and for three; what differs between the two graphs is what hangs on their number.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import getitem, mul
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from pcc.errors import PccError
from pcc.frontend.imported import ImportedModel, Input, import_model, importer_of
from pcc.frontend.save import WRITERS
from pcc.ir.graph import OUTPUT_NAMES, arguments, assign_attribute, constant, layer_name
from pcc.ir.register import REFERENCES

_aten: Any = torch.ops.aten


@dataclass(frozen=True)
class FromFile:
    """A trainable model, and how to write it back."""

    module: GraphModule
    input: Input
    """Of one sample."""
    outputs: tuple[str, ...]

    def imported(self, module: nn.Module) -> ImportedModel:
        """A state of the module, for one sample at a time; input and output are called as in the file."""
        found = import_model(copy.deepcopy(module).cpu().eval(), torch.zeros(self.input.shape))
        found.graph.meta[OUTPUT_NAMES] = self.outputs
        return replace(found, inputs=(self.input,), outputs=self.outputs)

    def save(self, module: nn.Module, path: Path, suffix: str) -> None:
        """Writes a state of the module, as `imported` has it, as ``.onnx`` or ``.pt2``."""
        WRITERS[suffix](self.imported(module), path)


def open_file(path: str | Path, shape: Sequence[int]) -> FromFile:
    """The model of an ONNX file or a ``.pt2`` archive for inputs of (C, H, W). Raises `PccError` for what cannot be
    imported, or not for several samples."""
    two, three = (_imported(path, count, shape) for count in (2, 3))
    if len(two.inputs) != 1 or len(two.outputs) != 1:
        raise PccError(
            f"{path} has {len(two.inputs)} inputs and {len(two.outputs)} outputs: training needs a model with one of "
            "each"
        )
    module = _Trainable(str(path), two.graph, three.graph).module()
    return FromFile(module, Input(two.inputs[0].name, (1, *shape)), two.outputs)


def _imported(path: str | Path, count: int, shape: Sequence[int]) -> ImportedModel:
    importer = importer_of(path)
    try:
        return importer(path, (torch.zeros(count, *shape),), count, any_batch=True)
    except PccError as error:
        if count == 2:
            importer(
                path, (torch.zeros(1, *shape),), 1, any_batch=True
            )  # where the number of samples is not to blame, this says what is
        raise PccError(
            f"{error} (to be trained, {path} has to take {count} samples at once: export it with a dynamic batch size)"
        ) from None


class _Trainable:
    """A graph for any number of samples, from those for two and for three."""

    def __init__(self, path: str, two: GraphModule, three: GraphModule) -> None:
        self.path, self.pairs = path, list(zip(two.graph.nodes, three.graph.nodes, strict=False))
        if len(two.graph.nodes) != len(three.graph.nodes) or any(
            a.target != b.target for a, b in self.pairs if a.op == "call_function"
        ):
            raise self.bound("the number of samples decides what it computes")
        self.root, self.graph = nn.Module(), Graph()
        self.copied: dict[Node, Any] = {}
        self.layers: dict[Any, str] = {}

    def bound(self, why: str) -> PccError:
        return PccError(f"{self.path} cannot be trained: {why}: export it with a dynamic batch size")

    def module(self) -> GraphModule:
        for node, other in self.pairs:
            if node.op == "placeholder":
                self.copied[node] = self.graph.placeholder(node.name)
                self.samples = self.graph.call_function(_aten.sym_size.int, (self.copied[node], 0))
            elif node.op == "get_attr":
                if node.meta["val"].shape != other.meta["val"].shape:
                    raise self.bound(f"its constant '{node.target}' is made for one number of samples")
            elif node.op == "call_function":
                self.copied[node] = self.call(node, other)
            else:
                (result,) = node.args[0]  # type: ignore[misc]  # of one output
                self.graph.output(self.value(result))
        module = GraphModule(self.root, self.graph, "Network")
        module.graph.eliminate_dead_code()
        module.recompile()
        return module

    def call(self, node: Node, other: Node) -> Node:
        source = node.args[0] if node.args else None
        if node.target is getitem and isinstance(source, Node) and self.copied[source].op == "call_module":
            if node.args[1] != 0:
                raise PccError(
                    f"{self.path} cannot be trained: the statistics that {layer_name(node)} computes are used"
                )
            return self.copied[source]  # a batch norm's result, of three
        make = _LAYERS.get(node.target)
        named = arguments(node) if make else {}
        layer = make(node, named) if make else None
        if layer is None:
            args = tuple(self.free(node.args, other.args))
            kwargs = {name: self.free(value, other.kwargs[name]) for name, value in node.kwargs.items()}
            return self.graph.call_function(REFERENCES.get(node.target, node.target), args, kwargs)  # type: ignore[arg-type]
        return self.graph.call_module(self.place(node, named, layer), (self.value(named["input"]),))

    def free(self, value: Any, other: Any) -> Any:
        """An argument; a number that grows with the samples is computed from theirs."""
        if isinstance(value, list | tuple):
            return [self.free(a, b) for a, b in zip(value, other, strict=True)]
        if isinstance(value, Node):
            return self.value(value)
        if value == other or value != value:
            return value
        if not isinstance(value, int) or value * 3 != other * 2:
            raise self.bound(f"it computes with {value} for two samples and {other} for three")
        return self.samples if value == 2 else self.graph.call_function(mul, (self.samples, value // 2))

    def value(self, node: Node) -> Node:
        """A node in the new graph; constants that are no layer's are made when they are first read."""
        if node not in self.copied:
            assign_attribute(self.root, f"constants.{node.name}", constant(node).clone())
            self.copied[node] = self.graph.get_attr(f"constants.{node.name}")
        return self.copied[node]

    def place(self, node: Node, named: Mapping[str, Any], layer: nn.Module) -> str:
        """Where the layer stands: under its weight's name, else its layer's; a layer that is called again is the same
        module."""
        key = (
            str(layer),
            *(getattr(named.get(name), "target", None) for name in ("weight", "bias", "running_mean", "running_var")),
        )
        if key not in self.layers:
            weight = named["weight"]
            name = str(weight.target) if weight is not None else ""
            name = name.removesuffix(".weight") if name.endswith(".weight") else layer_name(node)
            parts = [part for part in name.replace("/", ".").split(".") if part] or [node.name]
            self.layers[key] = _put(
                self.root, ["_" + part if hasattr(nn.Module, part) else part for part in parts], layer
            )
        return self.layers[key]


def _put(root: nn.Module, parts: list[str], layer: nn.Module) -> str:
    """Sets a module at a path, made free by a number if it is taken; its path."""
    for part in parts[:-1]:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root._modules[part]  # type: ignore[assignment]
    leaf, number = parts[-1], 0
    while leaf in root._modules:
        number += 1
        leaf = f"{parts[-1]}_{number}"
    root.add_module(leaf, layer)
    return ".".join([*parts[:-1], leaf])


# ---- layers ----


def _values(**nodes: Node | None) -> dict[str, Tensor] | None:
    """The values of constants that there are; None if one is computed."""
    there = {name: node for name, node in nodes.items() if node is not None}
    if not all(node.op == "get_attr" for node in there.values()):
        return None
    return {name: constant(node).clone() for name, node in there.items()}


def _filled(layer: nn.Module, values: Mapping[str, Tensor]) -> nn.Module:
    layer.load_state_dict(values, strict=False)
    return layer


def _conv2d(node: Node, named: Mapping[str, Any]) -> nn.Module | None:
    values = _values(weight=named["weight"], bias=named["bias"])
    if values is None or len(node.meta["val"].shape) != 4:
        return None
    filters, depth, *connection = values["weight"].shape
    padding = named["padding"] if isinstance(named["padding"], str) else tuple(named["padding"])
    options: Any = (
        tuple(connection),
        tuple(named["stride"]),
        padding,
        tuple(named["dilation"]),
        named["groups"],
        "bias" in values,
    )
    return _filled(nn.Conv2d(depth * named["groups"], filters, *options), values)


def _linear(node: Node, named: Mapping[str, Any]) -> nn.Module | None:
    values = _values(weight=named["weight"], bias=named["bias"])
    return (
        None
        if values is None
        else _filled(nn.Linear(values["weight"].shape[1], values["weight"].shape[0], "bias" in values), values)
    )


def _batch_norm(node: Node, named: Mapping[str, Any]) -> nn.Module | None:
    values = _values(**{name: named[name] for name in ("weight", "bias", "running_mean", "running_var")})
    rank = len(named["input"].meta["val"].shape)
    if (
        values is None
        or "running_mean" not in values
        or rank not in (2, 3, 4)
        or len({"weight", "bias"} & set(values)) == 1
    ):
        return None
    kind = nn.BatchNorm2d if rank == 4 else nn.BatchNorm1d
    return _filled(kind(len(values["running_mean"]), named["eps"], named["momentum"], "weight" in values), values)


_LAYERS: dict[Any, Callable[[Node, Mapping[str, Any]], nn.Module | None]] = {
    **dict.fromkeys((_aten.conv2d.default, _aten.conv2d.padding), _conv2d),
    _aten.linear.default: _linear,
    **dict.fromkeys((_aten.batch_norm.default, _aten._native_batch_norm_legit_no_training.default), _batch_norm),
}
