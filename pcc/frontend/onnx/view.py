"""Any stage of a graph as an ONNX file to look at (Netron shows it): the graph's own operators in domains of their own,
what is known about a node as its ``metadata_props``. It holds no weights and no runtime computes it; ``pcc export``
writes models that are for use.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import NodeProto, TensorProto, ValueInfoProto, helper
from torch import Tensor
from torch.fx import GraphModule, Node

from pcc.ir.annotations import annotations, skips
from pcc.ir.counts import count
from pcc.ir.graph import arguments, constant, layer_name, outputs

DOMAIN = "pcc"
"""Of pcc's operators, and of ``constant``."""

_IR_VERSION, _OPSET = 10, 18
"""The first with metadata of nodes; ONNX 1.16."""

_TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.float16: TensorProto.FLOAT16,
    torch.float64: TensorProto.DOUBLE,
    torch.uint8: TensorProto.UINT8,
    torch.int8: TensorProto.INT8,
    torch.int32: TensorProto.INT32,
    torch.int64: TensorProto.INT64,
    torch.bool: TensorProto.BOOL,
}


def save_view(graph_module: GraphModule, name: str, path: Path) -> None:
    """Writes the view of a graph; OSError where that is refused."""
    nodes = [node for node in graph_module.graph.nodes if node.op in ("get_attr", "call_function")]
    inputs = [_value(node) for node in graph_module.graph.find_nodes(op="placeholder")]
    returned = {node.name: node for node in outputs(graph_module).values()}
    known = [_value(node) for node in nodes if isinstance(node.meta["val"], Tensor) and node.name not in returned]
    graph = helper.make_graph(
        [_node(node) for node in nodes], name, inputs, [_value(node) for node in returned.values()], value_info=known
    )
    domains = sorted({node.domain for node in graph.node} | {DOMAIN})
    opsets = [helper.make_opsetid("", _OPSET), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, producer_name="pcc", ir_version=_IR_VERSION, opset_imports=opsets)
    onnx.save(model, str(path))


def _value(node: Node) -> ValueInfoProto:
    value: Tensor = node.meta["val"]
    return helper.make_tensor_value_info(node.name, _TYPES.get(value.dtype, TensorProto.UNDEFINED), list(value.shape))


def _node(node: Node) -> NodeProto:
    if node.op == "get_attr":
        proto = helper.make_node("constant", [], [node.name], name=str(node.target), domain=DOMAIN)
        value = constant(node)
        notes = {"bytes": str(value.nbytes), "nonzeros": str(int(value.count_nonzero()))}
    else:
        domain, operator, args = _call(node)
        attributes = {key: plain for key, value in args.items() if (plain := _plain(value)) is not None}
        proto = helper.make_node(
            operator, list(_operands(args.values())), [node.name], name=node.name, domain=domain, **attributes
        )
        notes = _notes(node)
    for key, value in notes.items():
        proto.metadata_props.add(key=key, value=value)
    return proto


def _call(node: Node) -> tuple[str, str, dict[str, Any]]:
    """The domain and the name of an operator, and its arguments by name."""
    if not hasattr(node.target, "_schema"):  # operator.getitem
        return (
            DOMAIN,
            getattr(node.target, "__name__", str(node.target)),
            {f"argument_{place}": value for place, value in enumerate(node.args)},
        )
    domain, _, operator = str(node.target).removesuffix(".default").rpartition(".")
    return domain, operator, arguments(node)


def _operands(values: Iterable[Any]) -> Iterator[str]:
    """The names of what a call reads, lists one after the other."""
    for value in values:
        yield from (
            operand.name
            for operand in (value if isinstance(value, list | tuple) else [value])
            if isinstance(operand, Node)
        )


def _plain(value: Any) -> Any:
    """What an attribute can hold: a number, a text, a list of numbers; None for tensors and for nothing."""
    if isinstance(value, list | tuple):
        numbers = [each for each in value if isinstance(each, int | float)]
        return numbers if numbers and len(numbers) == len(value) else None
    if value is None or isinstance(value, Node):
        return None
    return value if isinstance(value, int | float | str) else str(value)


def _notes(node: Node) -> dict[str, str]:
    """The layer, its annotations by the names of their types, its counts, and why passes left it alone."""
    notes = {"layer": layer_name(node)} | {f"{DOMAIN}.{type(each).__name__}": str(each) for each in annotations(node)}
    counts = count(node)
    if counts.weight_bytes:
        notes |= {f"count.{name}": str(value) for name, value in vars(counts).items()}
    return notes | {f"skipped.{skip.pass_name}": skip.reason for skip in skips(node)}
