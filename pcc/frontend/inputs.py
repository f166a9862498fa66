"""What a user hands in, as what the importer reads: an ``nn.Module`` whose parameters have values, and a tuple of
tensors."""

import inspect
import re
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.nn.parameter import is_lazy

from pcc.dtype import full_name
from pcc.errors import PccError

INPUT_TYPES = (torch.float32, torch.uint8, torch.int8, torch.int32, torch.int64, torch.bool)
"""What a model may take. Truth values are bytes to whoever runs it."""


def check_input(name: str | int, example: Tensor) -> None:
    """`PccError` for an example of a type that pcc does not take, or of no elements."""
    if example.dtype not in INPUT_TYPES:
        kinds = ", ".join(map(full_name, INPUT_TYPES))
        raise PccError(f"input {name} is {full_name(example.dtype)}: pcc compiles fp32 models with inputs of {kinds}")
    if not example.numel():
        raise PccError(f"input {name} is empty: {'x'.join(map(str, example.shape))}")


def library_name(name: str) -> str:
    """A name that files and C identifiers can have."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name).lstrip("_0123456789-") or "model"


class Function(nn.Module):
    """A plain function as a module: its ``forward``, so that inputs have the function's names. What it captures are
    constants."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.forward = function


def as_module(model: Any) -> nn.Module:
    """A module, an exported program or a plain function as a module.

    Raises `PccError` for anything else, and for parameters without values: lazy ones and those on the meta device.
    """
    if isinstance(model, ExportedProgram):
        model = model.module()
    if not isinstance(model, nn.Module):
        if isinstance(model, type) or not callable(model):
            raise PccError(
                f"a model of type '{_type_name(model)}': pcc compiles an nn.Module, what torch.export gives, or a "
                "function of tensors"
            )
        return Function(model)
    for part in model.modules():
        if isinstance(part, GraphModule) and "train" in vars(
            part
        ):  # torch.export made it, and made its train() and eval() raise
            vars(part)["train"] = vars(part)["eval"] = _keep_mode(part)
    for name, values in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(values):
            raise PccError(
                f"'{name}' has no shape yet (a lazy layer): call the model once on an example before pcc gets it"
            )
        if values.is_meta:
            raise PccError(
                f"'{name}' is on the meta device, without values: make the model on the CPU or load its weights first"
            )
    return model


def model_name(model: Any) -> str:
    """A name for a library: the module's class, the function's or the file's name, in small letters; ``model`` where
    there is none."""
    if isinstance(model, str | PathLike):
        return library_name(Path(model).stem).lower()
    if isinstance(model, nn.Module) and not isinstance(model, GraphModule):
        return type(model).__name__.lower()
    name = getattr(model, "__name__", "")
    return name.lower() if name.isidentifier() else "model"


def example_tensors(model: nn.Module, examples: Any) -> tuple[Tensor, ...]:
    """Example inputs in the order of ``forward``.

    Takes a tensor or NumPy array, or several in a tuple, list or dict (by the names of ``forward``). Raises `PccError`
    for anything else.
    """
    if isinstance(examples, Tensor | np.ndarray):
        examples = (examples,)
    if isinstance(examples, Mapping):
        examples = _in_order(model, examples)
    if not isinstance(examples, list | tuple):
        raise PccError(
            f"example inputs of type '{_type_name(examples)}': give tensors or NumPy arrays, in a tuple, list or dict"
        )
    return tuple(example_tensor(position, example) for position, example in enumerate(examples))


def _in_order(model: nn.Module, examples: Mapping[Any, Any]) -> tuple[Any, ...]:
    forward = inspect.signature(model.forward)
    try:
        bound = forward.bind(**{str(name): example for name, example in examples.items()})
    except TypeError as error:
        raise PccError(
            f"example inputs {', '.join(map(str, examples))} do not fit forward{_names(forward)}: {error}"
        ) from error
    if bound.kwargs:
        raise PccError(
            f"forward{_names(forward)} takes {', '.join(bound.kwargs)} by name only: pcc compiles inputs that have a "
            "position"
        )
    return bound.args


def example_tensor(position: int, example: Any) -> Tensor:
    if isinstance(example, np.ndarray):
        try:
            example = torch.from_numpy(np.ascontiguousarray(example).copy())
        except TypeError as error:
            raise PccError(
                f"input {position} is an array of {example.dtype}: pcc compiles models whose inputs are tensors"
            ) from error
    if not isinstance(example, Tensor):
        raise PccError(
            f"input {position} is of type '{_type_name(example)}': pcc compiles models whose inputs are tensors"
        )
    return example


def example_of_batch(example: Tensor, batch: int) -> Tensor:
    """Zeros of an example's shape for a number of images. `PccError` for an example without dimensions."""
    if not example.dim():
        raise PccError(
            "an input without dimensions has none for the images of a batch: compile without a maximum batch"
        )
    return example.new_zeros(batch, *example.shape[1:])


def _keep_mode(module: nn.Module) -> Callable[..., nn.Module]:
    """``train()`` and ``eval()`` of a module whose mode is written into its graph."""
    return lambda *_: module


def _names(forward: inspect.Signature) -> str:
    return f"({', '.join(forward.parameters)})"


def _type_name(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else type(value).__name__
