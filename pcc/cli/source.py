"""What a command line's MODEL and its weights mean: the module, its example input, and what belongs to it."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pcc.errors import PccError

if TYPE_CHECKING:
    import torch

    from pcc.models.preprocess import Preprocessing

MOST_LETTERS = 100
"""Of a network's name, which names files and C identifiers."""


@dataclass(frozen=True)
class Source:
    """A network to compile."""

    name: str
    """Fit for a library's name."""
    module: "torch.nn.Module"
    example_inputs: tuple["torch.Tensor", ...]
    preprocessing: "Preprocessing | None" = None
    labels: tuple[str, ...] | None = None


def open_source(model: str, weights: str | None, input_shapes: tuple[tuple[int, ...], ...]) -> Source:
    """A zoo name (``resnet50``) or a factory in a file (``net.py:make``), with its weights loaded.

    ``weights`` is ``trained`` (what a zoo model has unless said otherwise; ``imagenet`` where it is that), ``none`` or a checkpoint file; a factory
    without any keeps those it made. ``input_shapes``, one for each input, default to the zoo model's. Raises `PccError` for whatever does not exist
    or does not fit.
    """
    return _from_file(model, weights, input_shapes) if ".py" in model else _from_zoo(model, weights, input_shapes)


def _from_zoo(model: str, weights: str | None, input_shapes: tuple[tuple[int, ...], ...]) -> Source:
    from pcc.models import create, entry

    found = entry(model)
    shapes = input_shapes or (found.input_shape,)
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1] != found.input_shape[1]:
        given = " and ".join(_shape_text(shape) for shape in shapes)
        raise PccError(f"--input-shape {given} does not fit {found.name}: it takes one input N,{found.input_shape[1]},H,W")
    module = create(found.name, weights=None if weights == "none" else weights or "trained")
    labels = found.labels() if found.labels else None
    return Source(_library_name(found.name), module, _zeros(shapes), _resized(found.preprocessing, shapes[0]), labels)


def _from_file(model: str, weights: str | None, input_shapes: tuple[tuple[int, ...], ...]) -> Source:
    from pcc.frontend import load_factory
    from pcc.frontend.checkpoint import load_weights
    from pcc.models.registry import OWN_WEIGHTS

    if weights in OWN_WEIGHTS:
        raise PccError(f"--weights {weights} is for zoo models; {model} takes a checkpoint file")
    if not input_shapes:
        raise PccError(f"{model}: a module does not say what it takes; give --input-shape, for example 1,3,224,224")
    module = load_factory(model).eval()
    if weights and weights != "none":
        load_weights(module, weights)
    return Source(_library_name(model.rsplit(":", 1)[1]), module, _zeros(input_shapes))


def _library_name(name: str) -> str:
    if len(name) > MOST_LETTERS:
        raise PccError(f"factory '{name[:20]}...' has {len(name)} letters: a network's name has at most {MOST_LETTERS}")
    return re.sub(r"[^A-Za-z0-9_-]", "_", name).lstrip("_0123456789-") or "model"


def _zeros(shapes: tuple[tuple[int, ...], ...]) -> tuple["torch.Tensor", ...]:
    import torch

    return tuple(torch.zeros(shape) for shape in shapes)


def _resized(preprocessing: "Preprocessing", shape: tuple[int, ...]) -> "Preprocessing | None":
    """The preprocessing for another square input, in proportion; None for one that is not square."""
    height, width = shape[2:]
    if height != width:
        return None
    return preprocessing.model_copy(update={"size": height, "resize": max(height, round(preprocessing.resize * height / preprocessing.size))})


def _shape_text(shape: tuple[int, ...]) -> str:
    return ",".join(map(str, shape))
