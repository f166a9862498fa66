"""What every importer gives, and where the importers are: by a file's suffix, and by the Python type of a model."""

import importlib
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from pcc.errors import PccError
from pcc.ir.graph import layer_name, outputs, shape_of


@dataclass(frozen=True)
class Input:
    """An input of a model: what its file or its ``forward`` calls it, its shape and type."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    def sample(self, generator: torch.Generator) -> Tensor:
        """A value to try the model with: unit normal noise; bytes; of other whole numbers 0 and 1, which name something
        in any table."""
        if self.dtype == torch.float32:
            return torch.randn(self.shape, generator=generator)
        return torch.randint(0, 256 if self.dtype == torch.uint8 else 2, self.shape, generator=generator).to(self.dtype)


@dataclass(frozen=True)
class ImportedModel:
    """A model as all passes take it, whatever it was."""

    graph: GraphModule
    """ATen calls without side effects, every shape known."""
    layers: tuple[str, ...]
    """What its author, or its file, calls the layers, in the order they run."""
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    origin: str
    """Where it comes from: ``net.onnx (ONNX, opset 17, by pytorch 2.1)``."""


def imported(graph: GraphModule, origin: str, input_names: tuple[str, ...] | None = None) -> ImportedModel:
    """The record of a graph. Inputs are called as its placeholders are, unless told otherwise."""
    placeholders = graph.graph.find_nodes(op="placeholder")
    names = input_names or tuple(node.name for node in placeholders)
    layers = dict.fromkeys(layer_name(node) for node in graph.graph.nodes if node.op == "call_function")
    inputs = tuple(
        Input(name, shape_of(node), node.meta["val"].dtype) for name, node in zip(names, placeholders, strict=True)
    )
    return ImportedModel(graph, tuple(layers), inputs, tuple(outputs(graph)), origin)


@dataclass(frozen=True)
class Importer:
    """One way in."""

    what: str
    """What it reads, for errors: ``an ONNX file``."""
    suffix: str | None
    """Of the files it reads, in small letters; None if it reads none."""
    types: tuple[str, ...]
    """The classes it takes, ``module.Class``."""
    function: str
    """``module:function`` of ``(model, examples, batch) -> ImportedModel``."""

    def __call__(self, model: Any, examples: Any, batch: int | None, **options: Any) -> ImportedModel:
        module, _, name = self.function.partition(":")
        return getattr(importlib.import_module(module), name)(model, examples, batch, **options)


IMPORTERS = (
    Importer("an ONNX file", ".onnx", ("onnx.onnx_ml_pb2.ModelProto",), "pcc.frontend.onnx.importer:import_onnx"),
    Importer(
        "a model that is imported", None, ("pcc.frontend.imported.ImportedModel",), "pcc.frontend.imported:as_it_is"
    ),
    Importer("an archive of torch.export.save", ".pt2", (), "pcc.frontend.pt2:import_pt2"),
    Importer(
        "a torch module",
        None,
        ("torch.nn.modules.module.Module", "torch.export.exported_program.ExportedProgram"),
        "pcc.frontend.torch_module:import_torch",
    ),
)
"""Adding one is a file and a line."""


def as_it_is(model: ImportedModel, examples: Any, batch: int | None) -> ImportedModel:
    """A model that somebody imported and changed the names of."""
    return model


_FALLBACK = IMPORTERS[-1]
"""It also takes functions, and says what is no model."""


def importer_of(model: Any) -> Importer:
    """The importer of a file or an object. `PccError` for a file of a suffix that none reads."""
    if isinstance(model, str | PathLike):
        path = Path(model)
        for importer in IMPORTERS:
            if importer.suffix and path.suffix.lower() == importer.suffix:
                return importer
        known = " and ".join(f"{importer.suffix} ({importer.what})" for importer in IMPORTERS if importer.suffix)
        raise PccError(f"model '{path}': pcc reads {known}")
    kinds = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(model).__mro__}
    return next((importer for importer in IMPORTERS if kinds.intersection(importer.types)), _FALLBACK)


def is_model_file(text: str) -> bool:
    """Whether a text names a file that an importer reads, by its suffix."""
    return any(importer.suffix and text.lower().endswith(importer.suffix) for importer in IMPORTERS)


def import_model(model: Any, examples: Any = None, batch: int | None = None) -> ImportedModel:
    """A model as a graph, for inputs of exactly the examples' shapes; with ``batch``, for so many images, whatever the
    examples' first dimensions are.

    ``model`` is a path (``.onnx``, ``.pt2``), an ``nn.Module`` (an FX ``GraphModule`` too), what ``torch.export``
    gives, a function of tensors, or an ``onnx.ModelProto``. ``examples`` are tensors or NumPy arrays: one, a tuple or
    list of them, or a dict by the inputs' names; files that say all their shapes need none. Raises `PccError` in one
    line for whatever cannot be imported.
    """
    return importer_of(model)(model, examples, batch)
