"""Graphs go out again: as ONNX, as an archive of ``torch.export.save``, as a file of weights."""

import io
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node

from pcc.errors import PccError
from pcc.frontend.export import quiet
from pcc.frontend.imported import ImportedModel
from pcc.ir.graph import outputs
from pcc.tensor_file import save_tensors

OPSET = 18
"""Of the ONNX files: ONNX Runtime 1.14 and later read it."""


def save_onnx(model: ImportedModel, path: Path) -> None:
    """An ONNX file with the weights in it, by PyTorch's exporter; inputs and outputs are called as the model calls
    them. So are weights, but for those with a name that the exporter gives to what it computes: ``t`` becomes
    ``constant.t``."""
    names = [name for name, _ in model.graph.named_buffers()]
    program = _exported(model, {name: f"constant.{name}" for name in names if _is_computed(name)})
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            program,
            f=str(path),
            dynamo=True,
            external_data=False,
            verbose=False,
            opset_version=OPSET,
            input_names=[taken.name for taken in model.inputs],
            output_names=list(model.outputs),
        )


def save_pt2(model: ImportedModel, path: Path) -> None:
    content = io.BytesIO()
    torch.export.save(_exported(model), content)  # into a file on a full disk, PyTorch would end the process
    path.write_bytes(content.getbuffer())


def save_weights(model: ImportedModel, path: Path) -> None:
    """The graph's constants under their names. Those of layers are called as the model calls them."""
    save_tensors({name: value.detach().contiguous().clone() for name, value in model.graph.named_buffers()}, path)


WRITERS: dict[str, Callable[[ImportedModel, Path], None]] = {
    ".onnx": save_onnx,
    ".pt2": save_pt2,
    ".safetensors": save_weights,
}
"""By suffix."""


def writer_for(path: Path) -> Callable[[ImportedModel, Path], None]:
    """`PccError` for a suffix that nothing writes."""
    if path.suffix.lower() not in WRITERS:
        raise PccError(f"'{path}': give a file that ends in {', '.join(WRITERS)}")
    return WRITERS[path.suffix.lower()]


def _is_computed(name: str) -> bool:
    """Whether it is an operator's name, perhaps with a number."""
    operator = re.sub(r"_\d+$", "", name)
    return operator in ("val", "getitem") or hasattr(torch.ops.aten, operator)


def _exported(model: ImportedModel, renamed: Mapping[str, str] = MappingProxyType({})) -> ExportedProgram:
    with quiet(), torch.no_grad():
        return torch.export.export(
            _returning(model, renamed),
            tuple(torch.zeros(taken.shape, dtype=taken.dtype) for taken in model.inputs),
            strict=False,
        )


def _returning(model: ImportedModel, renamed: Mapping[str, str]) -> GraphModule:
    """The graph as a module that returns what its outputs are called: one value alone, ``output_0``, ... as a tuple,
    others as a dict; with other names for some constants."""
    graph = Graph()
    constants: dict[str, Any] = {}
    copied: dict[Node, Node] = {}
    for node in model.graph.graph.nodes:
        if node.op != "output":
            copied[node] = graph.node_copy(node, lambda operand: copied[operand])
        if node.op == "get_attr":
            name = str(node.target)
            copied[node].target = renamed.get(name, name)
            constants[renamed.get(name, name)] = model.graph.get_buffer(name)
    results = {name: copied[node] for name, node in outputs(model.graph).items()}
    if len(results) == 1:
        graph.output(next(iter(results.values())))
    else:
        graph.output(tuple(results.values()) if all(name.startswith("output_") for name in results) else results)
    return GraphModule(constants, graph)
