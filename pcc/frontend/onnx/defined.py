"""Operators that ONNX defines by others (Attention, RotaryEmbedding, ...), written out for inputs whose types and
shapes are known."""

from collections.abc import Sequence
from typing import Any

import onnx
import onnx_ir as ir
from onnx import FunctionProto, NodeProto, TypeProto, defs, helper
from onnx_ir.passes.common import InlinePass

from pcc.frontend.onnx.data_types import onnx_type
from pcc.frontend.onnx.emitter import Value, dtype, shape


def definition(node: ir.Node, opset: int, inputs: Sequence[Value | None]) -> tuple[ir.Graph, int] | None:
    """The nodes that an operator stands for: a graph of the inputs that are there, which gives the outputs that have
    names, and its opset. None where ONNX has no definition of it."""
    call: NodeProto = ir.to_proto(node)
    call.domain = ""
    taken = [f"input_{place}" if value is not None else "" for place, value in enumerate(inputs)]
    call.input[:] = taken
    types = [TypeProto() if value is None else _type(value) for value in inputs]
    schema = _schema(call.op_type, opset)
    if schema is None:
        return None
    _add_defaults(call, schema)
    function: FunctionProto = schema.function_body
    if schema.has_context_dependent_function:
        function = FunctionProto.FromString(
            schema.get_context_dependent_function(
                call.SerializeToString(), [kind.SerializeToString() for kind in types]
            )
        )
    if not function.node:  # ONNX has none for these types
        return None
    function.domain, function.name = "", call.op_type
    named = [place for place, name in enumerate(call.output) if name]
    function.output[:] = [function.output[place] for place in named]
    call.output[:] = [call.output[place] for place in named]
    graph = helper.make_graph(
        [call],
        call.op_type,
        [onnx.ValueInfoProto(name=name, type=kind) for name, kind in zip(taken, types, strict=True) if name],
        [onnx.ValueInfoProto(name=name) for name in call.output],
    )
    model = helper.make_model(graph, functions=[function], opset_imports=function.opset_import)
    written = InlinePass()(ir.from_proto(model)).model.graph
    for inner in written.all_nodes():
        inner.name = node.name or node.op_type.lower()
    return written, function.opset_import[0].version


def is_defined(operator: str, opset: int) -> bool:
    schema = _schema(operator, opset)
    return schema is not None and (schema.has_function or schema.has_context_dependent_function)


def _schema(operator: str, opset: int) -> Any:  # its stubs lack what is about functions
    try:
        return defs.get_schema(operator, opset, "")
    except defs.SchemaError:
        return None


def _add_defaults(call: NodeProto, schema: defs.OpSchema) -> None:
    """A definition refers to attributes that a node may leave out."""
    given = {attribute.name for attribute in call.attribute}
    call.attribute.extend(
        attribute.default_value
        for name, attribute in schema.attributes.items()
        if name not in given and attribute.default_value.name
    )


def _type(value: Value) -> TypeProto:
    return helper.make_tensor_type_proto(onnx_type(dtype(value)), list(shape(value)))
