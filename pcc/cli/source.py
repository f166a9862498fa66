"""What a command line's MODEL and its weights mean: the module, its example input, and what belongs to it."""

import inspect
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcc.cli.shapes import InputShape
from pcc.errors import PccError

if TYPE_CHECKING:
    import torch

    from pcc.models.preprocess import Preprocessing
    from pcc.package.read import Package

Shapes = tuple[InputShape, ...] | dict[str, InputShape]
"""Of the inputs, in their order or by their names."""

MOST_LETTERS = 100
"""Of a network's name, which names files and C identifiers."""


@dataclass(frozen=True)
class Source:
    """A network to compile."""

    name: str
    """Fit for a library's name."""
    model: Any
    """What `import_model` takes: a module, or the path of a file that an importer reads."""
    examples: Any
    """Zeros of the inputs' shapes, in order or by name; None for a file that says them itself."""
    preprocessing: "Preprocessing | None" = None
    labels: tuple[str, ...] | None = None


def is_package(path: str) -> bool:
    """Whether a command line's MODEL names a package."""
    from pcc.package.manifest import MANIFEST

    return os.path.lexists(Path(path) / MANIFEST)


def package_at(path: str) -> "Package | None":
    """The package that a command line's MODEL names; None for what is none. `PccError` for one that is damaged."""
    from pcc.package.read import open_package

    return open_package(Path(path)) if is_package(path) else None


def open_source(model: str, weights: str | None, input_shapes: Shapes) -> Source:
    """A zoo name (``resnet50``), a factory in a file (``net.py:make``), with its weights loaded, or a model file
    (``net.onnx``, ``net.pt2``).

    ``weights`` is ``trained`` (what a zoo model has unless said otherwise; ``imagenet`` where it is that), ``none`` or
    a checkpoint file; a factory without any keeps those it made, and a model file holds its own. ``input_shapes``, one
    for each input in order or by name, default to the zoo model's or the file's. Raises `PccError` for whatever does
    not exist or does not fit.
    """
    from pcc.frontend.imported import is_model_file
    from pcc.models import names

    if is_model_file(model):
        return _from_model_file(model, weights, input_shapes)
    if model.endswith(".py") or ".py:" in model:
        return _from_factory(model, weights, input_shapes)
    if is_package(model) and model not in names():
        raise PccError(
            f"'{model}' is a package, whose weights are packed for its kernels: give the model it was compiled from"
        )
    if Path(model).suffix and Path(model).is_file():
        raise PccError(
            f"'{model}' is no model file: a checkpoint is for --weights, beside FILE.py:factory or a zoo name"
        )
    return _from_zoo(model, weights, input_shapes)


def _from_model_file(model: str, weights: str | None, input_shapes: Shapes) -> Source:
    from pcc.frontend.inputs import library_name

    if weights is not None:
        raise PccError(f"--weights {weights} is for modules; {model} holds its weights")
    if not Path(model).is_file():
        raise PccError(f"model '{model}': there is no such file")
    return Source(
        _short(library_name(Path(model).stem)), Path(model), _zeros(input_shapes, "meta") if input_shapes else None
    )


def _from_zoo(model: str, weights: str | None, input_shapes: Shapes) -> Source:
    from pcc.models import create, entry

    found = entry(model)
    if isinstance(input_shapes, dict):
        raise PccError(
            f"--input-shape {next(iter(input_shapes))}=...: {found.name} has one input, give its shape without a name"
        )
    shapes = input_shapes or (InputShape(None, found.input_shape),)
    shape = shapes[0].shape
    if (
        len(shapes) != 1
        or len(shape) != 4
        or shape[1] != found.input_shape[1]
        or shapes[0].dtype not in (None, "float32")
    ):
        sizes = " and ".join(map(_shape_text, shapes))
        raise PccError(
            f"--input-shape {sizes} does not fit {found.name}: it takes one input N,{found.input_shape[1]},H,W"
        )
    module = create(found.name, weights=None if weights == "none" else weights or "trained")
    labels = found.labels() if found.labels else None
    return Source(found.name, module, _zeros(shapes), found.preprocessing.resized(*shape[2:]), labels)


def _from_factory(model: str, weights: str | None, input_shapes: Shapes) -> Source:
    from pcc.frontend import load_factory
    from pcc.frontend.checkpoint import load_weights
    from pcc.frontend.inputs import library_name
    from pcc.models.registry import OWN_WEIGHTS

    if weights in OWN_WEIGHTS:
        raise PccError(f"--weights {weights} is for zoo models; {model} takes a checkpoint file")
    if not input_shapes:
        raise PccError(f"{model}: a module does not say what it takes; give --input-shape, for example 1,3,224,224")
    module = load_factory(model).eval()
    _check_count(model, module, input_shapes)
    if weights and weights != "none":
        load_weights(module, weights)
    return Source(_short(library_name(model.rsplit(":", 1)[1])), module, _zeros(input_shapes))


def _check_count(model: str, module: "torch.nn.Module", shapes: Shapes) -> None:
    """`PccError` where a module takes fewer inputs, or needs more, than shapes are given in order."""
    if isinstance(shapes, dict):
        return  # who fits names to inputs says it with the names
    try:
        forward = inspect.signature(module.forward)
    except (TypeError, ValueError):
        return  # code without a signature, as some of C++: running it tells
    try:
        forward.bind(*shapes)
    except TypeError:
        count = f"{len(shapes)} input{'s' * (len(shapes) > 1)}"
        raise PccError(
            f"--input-shape says {count}, but {model} has forward({', '.join(forward.parameters)}): give one "
            "--input-shape for each input"
        ) from None


def _short(name: str) -> str:
    if len(name) > MOST_LETTERS:
        raise PccError(f"'{name[:20]}...' has {len(name)} letters: a network's name has at most {MOST_LETTERS}")
    return name


def _zeros(shapes: Shapes, untyped: str = "cpu") -> "tuple[torch.Tensor, ...] | dict[str, torch.Tensor]":
    """Zeros of the shapes. On the device ``untyped`` where no type was written: on ``meta`` they are shapes alone, for
    files that know the types."""
    import torch

    def zeros(taken: InputShape) -> torch.Tensor:
        return torch.zeros(
            taken.shape, dtype=getattr(torch, taken.dtype or "float32"), device="cpu" if taken.dtype else untyped
        )

    return (
        {name: zeros(taken) for name, taken in shapes.items()}
        if isinstance(shapes, dict)
        else tuple(map(zeros, shapes))
    )


def _shape_text(taken: InputShape) -> str:
    return ",".join(map(str, taken.shape)) + (f":{taken.dtype}" if taken.dtype else "")
