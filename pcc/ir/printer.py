"""A graph as text: totals, then one line a node. Equal graphs give equal text, so two dumps compare with diff."""

from typing import Any

from torch.fx import GraphModule, Node

from pcc.dtype import short_name
from pcc.ir.annotations import annotations, skips
from pcc.ir.counts import Counts, count, count_all
from pcc.ir.graph import arguments, layer_name, outputs


def print_graph(graph_module: GraphModule) -> str:
    """The text of a graph::

    # 4 calls, 24 parameters, 24 non-zeros, ... %x: f32[1,3,8,8] = input %conv_weight: f32[8,3,3,3] = constant
    conv.weight %conv: f32[1,8,8,8] = pcc.conv2d(x=%x, weight=%conv_weight, stride=[1,1], ...)  # parameters=216
    nonzeros=216 macs=13824 kept=13824 return output=%conv
    """
    calls = sum(node.op == "call_function" for node in graph_module.graph.nodes)
    lines = [f"# {calls} calls, {_describe(count_all(graph_module))}"]
    lines += [print_node(node) for node in graph_module.graph.nodes if node.op != "output"]
    lines.append("return " + ", ".join(f"{name}=%{node.name}" for name, node in outputs(graph_module).items()))
    return "\n".join(lines) + "\n"


def print_node(node: Node) -> str:
    """The line of one node: name, type, what computes it, and behind ``#`` what is known about it."""
    head = f"%{node.name}: {_type(node.meta['val'])} = {_expression(node)}"
    notes = _notes(node)
    return f"{head}  # {'; '.join(notes)}" if notes else head


def _expression(node: Node) -> str:
    if node.op == "placeholder":
        return "input"
    if node.op == "get_attr":
        return f"constant {node.target}"
    if not hasattr(node.target, "_schema"):  # operator.getitem
        return f"{getattr(node.target, '__name__', node.target)}({', '.join(map(_value, node.args))})"
    shown = [f"{name}={_value(value)}" for name, value in arguments(node).items() if value is not None]
    return f"{str(node.target).removesuffix('.default')}({', '.join(shown)})"


def _notes(node: Node) -> list[str]:
    if node.op != "call_function":
        return []
    layer = layer_name(node)
    notes = [] if layer.replace(".", "_") == node.name or layer == node.name else [f"of {layer}"]
    notes += [str(annotation) for annotation in annotations(node)]
    counts = count(node)
    if counts.weight_bytes:
        notes.append(_cost(counts))
    return notes + [f"skipped by {skip}" for skip in skips(node)]


def _cost(counts: Counts) -> str:
    text = f"parameters={counts.parameters} nonzeros={counts.nonzeros}"
    if counts.macs:
        text += f" macs={counts.macs} kept={counts.kept_macs}"
    return f"{text} bytes={counts.weight_bytes}"


def _describe(counts: Counts) -> str:
    return (
        f"{counts.parameters} parameters, {counts.nonzeros} non-zeros, {counts.macs} MACs, {counts.kept_macs} kept,"
        f" {counts.weight_bytes} bytes of constants, {counts.output_bytes} bytes of activations"
    )


def _type(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_type, value))})"
    return f"{short_name(value.dtype)}[{','.join(map(str, value.shape))}]"


def _value(value: Any) -> str:
    if isinstance(value, Node):
        return f"%{value.name}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_value, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
