"""An ONNX model as a graph: its inputs get shapes, its nodes become calls one after the other, and what cannot be is
one error that names all of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch
from torch import Tensor
from torch.fx import GraphModule

from pcc.dtype import full_name
from pcc.errors import PccError, shortened
from pcc.frontend.checkpoint import check_finite
from pcc.frontend.export import quiet
from pcc.frontend.imported import ImportedModel, imported
from pcc.frontend.input_shapes import Declared, chosen_examples
from pcc.frontend.onnx.control import RUN, body, check_passed
from pcc.frontend.onnx.data_types import torch_tensor, torch_type
from pcc.frontend.onnx.defined import definition, is_defined
from pcc.frontend.onnx.emitter import AlreadyRefused, Emitter, Refused, Value
from pcc.frontend.onnx.marks import Sizes
from pcc.frontend.onnx.names import has_weight, layer_of, node_name, unique
from pcc.frontend.onnx.read import MOST_NODES, read_model
from pcc.frontend.onnx.refused import REFUSED, refusal
from pcc.frontend.onnx.rows import apply_to_rows
from pcc.frontend.onnx.rules import TABLE
from pcc.ir.graph import OUTPUT_NAMES, finish

DOMAINS = ("", "ai.onnx")
"""The operators of ONNX itself."""

OPSETS = range(7, 100)
"""Before 7 operators broadcast by rules of their own."""

_UNKNOWN = (
    "pcc does not know it: export the model with an older opset, which spells it with simpler operators, or end it "
    "before"
)

_aten: Any = torch.ops.aten

_WEIGHTED = {
    *(_aten.conv1d, _aten.conv2d, _aten.conv3d, _aten.conv_transpose1d, _aten.conv_transpose2d, _aten.conv_transpose3d),
    *(_aten.linear, _aten.mm, _aten.matmul),
    *(_aten.lstm, _aten.gru, _aten.rnn_tanh, _aten.rnn_relu),
    *(_aten.batch_norm, _aten.instance_norm, _aten.layer_norm, _aten.group_norm),
}
"""What has weights."""


def import_onnx(
    model: str | Path | onnx.ModelProto, examples: Any = None, batch: int | None = None, any_batch: bool = False
) -> ImportedModel:
    """The graph of an ONNX file, see `import_model`; ``any_batch`` takes a batch that is another than the file fixes.

    Raises `PccError` for what is damaged, open or not fp32, and one for all that pcc cannot import.
    """
    parsed, name = read_model(model)
    inputs = [value for value in parsed.graph.inputs if not value.is_initializer()]
    try:
        declared = [
            Declared(value.name or f"input_{place}", _sizes(value), _type(value)) for place, value in enumerate(inputs)
        ]
    except Refused as error:
        raise PccError(f"model {name}: {error}") from None
    graph_module = build_graph(parsed, name, chosen_examples(declared, examples, f"model {name}", batch, any_batch))
    for key, value in (*graph_module.named_buffers(),):
        if value.is_floating_point() and value.dtype != torch.float32:
            raise PccError(
                f"'{key}' is {full_name(value.dtype)}: pcc compiles fp32 models; convert the file to fp32 first"
            )
    check_finite(graph_module, _weights(graph_module))
    producer = (
        f", by {shortened(f'{parsed.producer_name} {parsed.producer_version}'.strip(), 40)}"
        if parsed.producer_name
        else ""
    )
    return imported(
        graph_module,
        f"{name.strip(chr(39))} (ONNX, opset {opset_of(parsed)}{producer})",
        tuple(entry.name for entry in declared),
    )


def _weights(graph_module: GraphModule) -> set[str]:
    """The constants that a layer or a norm reads."""
    constants = graph_module.graph.find_nodes(op="get_attr")
    return {
        str(node.target)
        for node in constants
        if any(getattr(user.target, "overloadpacket", None) in _WEIGHTED for user in node.users)
    }


def without_rule(operator: str) -> bool:
    """Whether pcc knows nothing of an operator, not even why it refuses it."""
    return operator not in TABLE and operator not in REFUSED and operator not in RUN


def build_graph(model: ir.Model, name: str, examples: Sequence[Tensor]) -> GraphModule:
    """The graph for inputs of the examples' shapes and types. `PccError` that lists every node that cannot be
    imported."""
    with quiet():  # PyTorch logs what it raises while shapes are inferred
        inputs = [value for value in model.graph.inputs if not value.is_initializer()]
        return ModelImport(model, name).run(inputs, examples)


def opset_of(model: ir.Model) -> int:
    return max((version for domain, version in model.opset_imports.items() if domain in DOMAINS), default=1)


def _sizes(value: ir.Value) -> tuple[int | str, ...] | None:
    """An input's declared sizes: a number, or the name of one that is open (``?`` without); None if not even their
    count is declared."""
    if value.shape is None:
        return None
    return tuple(
        size if isinstance(size, int) and size > 0 else str(getattr(size, "value", None) or "?") for size in value.shape
    )


def _type(value: ir.Value) -> torch.dtype:
    if value.type is not None and not isinstance(value.type, ir.TensorType):
        raise Refused(f"its input '{value.name}' is no tensor; pcc compiles models whose inputs are tensors")
    return torch_type(value.dtype) if value.dtype is not None else torch.float32


class ModelImport:
    """One model on its way."""

    def __init__(self, model: ir.Model, name: str) -> None:
        self.model, self.name = model, name
        self.emit = Emitter()
        self.values: dict[ir.Value, Value] = {}
        self.problems: dict[str, list[tuple[str, str]]] = {}
        """The operators and layers that cannot be imported, by the reason."""
        self.failed: set[ir.Value] = set()
        """What could not be computed, or reads what could not."""
        self.refused: set[ir.Node] = set()
        """What has its reason among the problems."""
        self.layers: set[str] = set()
        self.nodes = 0
        """Imported so far, those of each step of a loop counted."""

    def run(self, inputs: Sequence[ir.Value], examples: Sequence[Tensor]) -> GraphModule:
        self.emit.opset = opset_of(self.model)
        if self.emit.opset not in OPSETS:
            raise PccError(
                f"model {self.name} has opset {self.emit.opset}: pcc reads opset {OPSETS[0]} and later; "
                "onnx.version_converter makes them newer"
            )
        for value, name, example in zip(
            inputs, unique([value.name or "input" for value in inputs]), examples, strict=True
        ):
            self.values[value] = self.emit.input(name, example)
        self.graph(self.model.graph)
        missing = [value.name for value in self.model.graph.outputs if not self.has(value) and value not in self.failed]
        if missing and not self.problems:
            raise PccError(f"model {self.name} is damaged: nothing computes its output '{missing[0]}'")
        if self.problems:
            count = sum(map(len, self.problems.values()))
            listed = "; ".join(_described(reason, refused) for reason, refused in self.problems.items())
            raise PccError(f"pcc cannot compile {count} operator{'s' if count > 1 else ''} of this model: {listed}")
        if not self.model.graph.outputs:
            raise PccError(f"model {self.name} has no outputs")
        named = [(value.name or "output", self.values[value]) for value in self.model.graph.outputs] + list(
            self.emit.more_outputs.items()
        )
        graph_module = self.emit.finish([value for _, value in named])
        graph_module.meta[OUTPUT_NAMES] = tuple(unique([name for name, _ in named]))
        finish(graph_module)
        return graph_module

    def graph(self, graph: ir.Graph) -> None:
        """Computes a graph's values, or a branch's."""
        for node in graph:
            self.node(node)

    def has(self, value: ir.Value) -> bool:
        """Whether a value is there; an initializer is read for that."""
        if value not in self.values and value.is_initializer():
            self.values[value] = self.initializer(value)
        return value in self.values

    def initializer(self, value: ir.Value) -> Value:
        if value.const_value is None:
            raise PccError(f"model {self.name} is damaged: the initializer '{value.name}' has no values")
        try:
            tensor = torch_tensor(value.const_value)
        except Refused as error:
            raise PccError(f"model {self.name}: '{value.name}' has {error}") from None
        except Exception as error:  # external data that is too short, raw data of another length
            raise PccError(f"model {self.name} is damaged: the numbers of '{value.name}' cannot be read") from error
        value.const_value = None  # holds the file's bytes, all of them
        return self.emit.called(self.emit.read(tensor), value.name or "constant")

    def node(self, node: ir.Node) -> None:
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise PccError(
                f"model {self.name} has more than {MOST_NODES:,} nodes, its loops written out: pcc compiles smaller "
                "networks"
            )
        layer = self.layer(node)
        missing = [value for value in node.inputs if value is not None and not self.has(value)]
        unknown = [value for value in missing if value not in self.failed]
        try:
            self.check_operator(node)
            if unknown:
                raise Refused(f"nothing computes its input '{unknown[0].name}'")
            if not missing:
                return self.compute(node, layer)
        except AlreadyRefused:
            pass
        except (Refused, PccError) as error:
            self.refuse(node, layer, str(error))
        except (MemoryError, RecursionError, KeyboardInterrupt):
            raise
        except Exception as error:  # PyTorch's for shapes and types that do not fit
            self.refuse(node, layer, shortened((str(error).strip() or type(error).__name__).split(chr(10), 1)[0], 200))
        self.failed.update(node.outputs)

    def check_operator(self, node: ir.Node) -> None:
        """`Refused` for what pcc cannot import whatever its inputs are."""
        if node.domain not in DOMAINS:
            raise Refused(
                f"it is of the domain '{node.domain}'; pcc knows ONNX's own operators: export the model without "
                "another runtime's optimisations"
            )
        if node.op_type in REFUSED:
            raise Refused(REFUSED[node.op_type])
        if without_rule(node.op_type) and not is_defined(node.op_type, self.emit.opset):
            raise Refused(_UNKNOWN)

    def refuse(self, node: ir.Node, layer: str, reason: str) -> None:
        """Notes why, once for all steps of a loop."""
        if node not in self.refused:
            self.refused.add(node)
            self.problems.setdefault(reason, []).append((node.op_type, layer))

    def compute(self, node: ir.Node, layer: str) -> None:
        inputs = [None if value is None else self.values[value] for value in node.inputs]
        if node.op_type in RUN:
            check_passed(self.emit, inputs)
            return RUN[node.op_type](self, node)
        if without_rule(node.op_type):
            return self.define(node, inputs)
        emit = self.emit
        emit.layer, emit.kind, emit.name = layer, node.op_type, node_name(node, layer)
        emit.used = tuple(map(_is_read, node.outputs))
        emit.named = tuple(bool(value.name) for value in node.outputs)
        attributes = {attribute.name: _attribute(attribute) for attribute in node.attributes.values()}
        results = apply_to_rows(TABLE[node.op_type], emit, inputs, attributes)
        for place, value in enumerate(node.outputs):
            result = results[place] if place < len(results) else None
            if result is not None and value.is_graph_output() and isinstance(mark := emit.marks.get(result), Sizes):
                raise refusal(mark)
            if result is not None:
                self.set(value, emit.called(result, value.name or emit.name) if isinstance(result, Tensor) else result)
            elif emit.used[place]:
                raise Refused(f"its output {place} is used")

    def define(self, node: ir.Node, inputs: Sequence[Value | None]) -> None:
        """An operator without a rule, by those that ONNX defines it by."""
        opset = self.emit.opset
        if (found := definition(node, opset, inputs)) is None:
            raise Refused(_UNKNOWN)
        graph, self.emit.opset = found
        try:
            results = body(self, graph, [value for value in inputs if value is not None])
        finally:
            self.emit.opset = opset
        outer = [value for value in node.outputs if _is_read(value)]
        for value, result in zip(outer, results, strict=True):
            self.set(value, result)

    def set(self, value: ir.Value, result: Value) -> None:
        self.values[value] = result
        self.failed.discard(value)

    def layer(self, node: ir.Node) -> str:
        """A layer with a weight has a name of its own."""
        layer = layer_of(node)
        if not has_weight(node):
            return layer
        free, number = layer, 1
        while free in self.layers:
            number += 1
            free = f"{layer}_{number}"
        self.layers.add(free)
        return free


def _is_read(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


def _described(reason: str, refused: Sequence[tuple[str, str]]) -> str:
    """What is refused for the same reason: ``QuantizeLinear, ConvInteger (layer conv1 and 6 more: it computes with
    quantised values; ...)``."""
    operators, layers = (list(dict.fromkeys(names)) for names in zip(*refused, strict=True))
    more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
    return f"{', '.join(operators)} (layer {layers[0]}{more}: {reason})"


def _attribute(attribute: ir.Attr) -> Any:
    if attribute.is_ref():
        raise Refused(f"the attribute {attribute.name} refers to a function's")
    return attribute.value
