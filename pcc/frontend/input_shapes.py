"""The shapes that a model file is compiled for: those it declares, and those that its user gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcc.errors import PccError
from pcc.frontend.inputs import example_tensor


@dataclass(frozen=True)
class Declared:
    """An input as its file declares it."""

    name: str
    sizes: tuple[int | str, ...] | None
    """A number, or the name of a size that is open; None if not even their count is declared."""
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(map(str, self.sizes)) if self.sizes is not None else '?'})"


def chosen_examples(declared: Sequence[Declared], examples: Any, what: str, any_batch: bool = False) -> list[Tensor]:
    """One example for each input: what the user gives, checked against the file, or zeros of the declared shape.

    With ``any_batch`` the first size may be another than the file says. `PccError` that lists all inputs with open sizes if some are not given, and for
    examples that do not fit.
    """
    for one in declared:
        if one.dtype != torch.float32:
            raise PccError(f"{what}: its input '{one.name}' is {_type_name(one.dtype)}: pcc compiles fp32 models with fp32 inputs")
    if any_batch:
        declared = [replace(one, sizes=("?", *one.sizes[1:]) if one.sizes else one.sizes) for one in declared]
    by_name = _by_name(declared, examples, what)
    still_open = [one for one in declared if one.name not in by_name and (one.sizes is None or any(isinstance(size, str) for size in one.sizes))]
    if still_open:
        sizes = still_open[0].sizes or (1, 3, 224, 224)
        example = ",".join(str(size if isinstance(size, int) else 224 if place else 1) for place, size in enumerate(sizes))
        raise PccError(f"{what} leaves sizes of its inputs open: {'; '.join(map(str, still_open))}; give --input-shape {still_open[0].name}={example}")
    return [by_name[one.name] if one.name in by_name else torch.zeros([int(size) for size in one.sizes or ()]) for one in declared]


def _by_name(declared: Sequence[Declared], examples: Any, what: str) -> dict[str, Tensor]:
    if examples is None:
        return {}
    if isinstance(examples, Tensor | np.ndarray):
        examples = (examples,)
    names = [one.name for one in declared]
    if isinstance(examples, Mapping):
        if unknown := [name for name in examples if name not in names]:
            raise PccError(f"{what} has no input '{unknown[0]}': it has {', '.join(names)}")
        given = {str(name): example for name, example in examples.items()}
    else:
        if len(examples) != len(declared):
            raise PccError(f"{what} has {len(declared)} input{'s' if len(declared) != 1 else ''} ({', '.join(names)}), not {len(examples)}")
        given = dict(zip(names, examples, strict=True))
    return {one.name: _checked(one, names.index(one.name), given[one.name], what) for one in declared if one.name in given}


def _checked(one: Declared, position: int, given: Any, what: str) -> Tensor:
    """An example that fits an input."""
    example = example_tensor(position, given)
    if example.dtype != torch.float32:
        raise PccError(f"input {one.name} is {_type_name(example.dtype)}: pcc compiles fp32 models with fp32 inputs")
    if not _fits(tuple(example.shape), one.sizes):
        raise PccError(f"{what} takes {one}: {','.join(map(str, example.shape))} does not fit")
    if not example.numel():
        raise PccError(f"input {one.name} is empty: {'x'.join(map(str, example.shape))}")
    return example


def _fits(shape: tuple[int, ...], sizes: tuple[int | str, ...] | None) -> bool:
    """Whether a shape is one that was declared: sizes of one name are the same."""
    if sizes is None:
        return True
    bound: dict[str, int] = {}
    return len(shape) == len(sizes) and all(
        size == have if isinstance(size, int) else size == "?" or bound.setdefault(size, have) == have for have, size in zip(shape, sizes, strict=True)
    )


def _type_name(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")
