"""An ONNX file as onnx-ir has it: parsed, its functions inlined, without the nodes that no output needs, the others in
an order they can run in, its external data in its own folder."""

from collections.abc import Sequence
from graphlib import TopologicalSorter
from pathlib import Path, PurePosixPath
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx import defs
from onnx_ir.passes.common import InlinePass

from pcc.errors import PccError, shortened
from pcc.files import read_limited
from pcc.frontend.export import quiet
from pcc.frontend.onnx.sparse import with_dense_tensors

LARGEST = 2**31
"""Bytes of a file: protobuf has no larger ones; the weights of larger models are external data."""

LONGEST_REASON = 300
"""What an error shows of the checker's words, which may print weights."""
MOST_NODES = 20_000
"""Of a model, its functions and loops written out: some ten times as many as networks for phones have, and a minute to
import."""

MOST_SHARING = 4
"""How many tensors may lie at the same place of an external file."""


def read_model(model: str | Path | onnx.ModelProto) -> tuple[ir.Model, str]:
    """The model and what to call it in errors. `PccError` for a file that is damaged, cyclic, or reads what lies
    outside of its folder."""
    if isinstance(model, onnx.ModelProto):
        name, folder = "the ONNX model", None
        proto = model
    else:
        path = Path(model)
        name, folder = f"'{path.name}'", path.absolute().parent
        content = read_limited(path, "model", LARGEST)
        try:
            proto = onnx.ModelProto.FromString(content)
        except (DecodeError, ValueError) as error:
            raise PccError(f"model '{path}' is no ONNX file, or it is damaged") from error
    if not proto.HasField("graph") or not proto.opset_import:
        raise PccError(
            f"model {name} is no ONNX model, or it is damaged: it has no "
            f"{'operator set' if proto.HasField('graph') else 'graph'}"
        )
    try:
        with quiet():  # onnx-ir logs what it finds wrong
            parsed = ir.from_proto(with_dense_tensors(proto))
        _check_names(parsed)
        external = _external(parsed)
        for tensor in external:
            _stay_inside(tensor, folder, name)
        _check_amount(external, name)
        if _nodes(parsed) > MOST_NODES:
            raise PccError(
                f"model {name} has more than {MOST_NODES:,} nodes, its functions written out: pcc compiles smaller "
                "networks"
            )
        _agree_on_opsets(parsed, name)
        _name_after_operators(parsed)
        parsed = InlinePass()(parsed).model
        parsed.graph.sort()
        _drop_unread(parsed.graph)
    except PccError:
        raise
    except Exception as error:  # onnx-ir checks little of what a damaged file may hold
        raise PccError(f"model {name} is damaged: {shortened(_first_line(error), LONGEST_REASON)}") from error
    return parsed, name


def _check_names(model: ir.Model) -> None:
    """Names are text: protobuf hands on other bytes as they are."""
    for node in model.graph:
        names = [
            node.name,
            node.op_type,
            node.domain,
            *(value.name for value in (*node.inputs, *node.outputs) if value is not None),
        ]
        if any(isinstance(name, bytes) for name in (*names, *node.attributes, *node.metadata_props.values())):
            raise ValueError("a name is no text")
    if any(
        isinstance(value.name, bytes)
        for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values())
    ):
        raise ValueError("a name is no text")


def _agree_on_opsets(model: ir.Model, name: str) -> None:
    """Functions of another opset are read by the model's, where that has the same operators. `PccError` where it does
    not."""
    for function in model.functions.values():
        for domain, version in function.opset_imports.items():
            wanted = model.opset_imports.setdefault(domain, version)
            for node in function.all_nodes():
                if node.domain == domain and _since(node, version) != _since(node, wanted):
                    raise PccError(
                        f"model {name}: its function '{function.name}' is of opset {version}, and the model of opset "
                        f"{wanted}, in which {node.op_type} is another operator: export it with one opset"
                    )
            function.opset_imports[domain] = wanted


def _since(node: ir.Node, opset: int) -> int | None:
    """The opset that a node's operator has been as it is since; None for what ONNX does not know."""
    try:
        return defs.get_schema(node.op_type, opset, node.domain).since_version
    except defs.SchemaError:
        return None


def _name_after_operators(model: ir.Model) -> None:
    """Nodes of functions have names, which become those of layers."""
    for function in model.functions.values():
        for node in function.all_nodes():
            node.name = node.name or node.op_type.lower()


def _drop_unread(graph: ir.Graph) -> None:
    """Drops the nodes from which nothing leads to an output, in parts of the model, too."""
    for node in reversed(graph):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            for part in _graphs_in(node):  # they read values, too
                part.outputs.clear()
                _drop_unread(part)
            graph.remove(node, safe=True)
            continue
        for part in _graphs_in(node):
            _drop_unread(part)


def _graphs_in(node: ir.Node) -> list[ir.Graph]:
    return [attribute.as_graph() for attribute in node.attributes.values() if attribute.type == ir.AttributeType.GRAPH]


def _external(model: ir.Model) -> list[ir.ExternalTensor]:
    """All tensors whose numbers lie in other files."""
    found = []
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    for top in graphs:
        for graph in (top, *(part for part in top.subgraphs())):
            found += [
                value.const_value
                for value in graph.initializers.values()
                if isinstance(value.const_value, ir.ExternalTensor)
            ]
            for node in graph:
                for attribute in node.attributes.values():
                    values = attribute.value if isinstance(attribute.value, list | tuple) else [attribute.value]
                    found += [value for value in values if isinstance(value, ir.ExternalTensor)]
    return found


def _stay_inside(tensor: ir.ExternalTensor, folder: Path | None, name: str) -> None:
    """Points external data at the model's folder; `PccError` where it would be read elsewhere, through links too."""
    location = PurePosixPath(str(tensor.location))
    if folder is None:
        raise PccError(f"tensor '{tensor.name}' lies in a file '{location}' of its own: give pcc the model's path")
    target = (folder / location).resolve()
    if location.is_absolute() or ".." in location.parts or not target.is_relative_to(folder.resolve()):
        raise PccError(f"model {name}: tensor '{tensor.name}' lies outside of the model's folder, at '{location}'")
    if not target.is_file():
        raise PccError(f"model {name}: there is no file '{location}' with the tensor '{tensor.name}' beside it")
    tensor.base_dir = folder


def _check_amount(tensors: Sequence[ir.ExternalTensor], name: str) -> None:
    """`PccError` for external data that would take much more memory than disk."""
    bytes_in: dict[str, int] = {}
    for tensor in tensors:
        location = str(tensor.location)
        bytes_in[location] = bytes_in.get(location, 0) + tensor.nbytes
    for location, amount in bytes_in.items():
        size = (Path(tensors[0].base_dir) / location).stat().st_size
        if amount > MOST_SHARING * size:
            raise PccError(f"model {name} reads {amount:,} bytes of weights from '{location}', which has {size:,}")


def _nodes(model: ir.Model) -> int:
    """How many nodes a model has once its functions stand where they are called: a few functions that call each other
    twice are very many."""
    calls = {key: [node.op_identifier() for node in function.all_nodes()] for key, function in model.functions.items()}
    sizes: dict[Any, int] = {}
    for key in TopologicalSorter({key: set(called) & set(calls) for key, called in calls.items()}).static_order():
        sizes[key] = sum(sizes.get(called, 1) for called in calls[key])
    return sum(sizes.get(node.op_identifier(), 1) for node in model.graph.all_nodes())


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:  # onnx-ir says where, and then what
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0]
