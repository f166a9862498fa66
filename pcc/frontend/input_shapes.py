"""The shapes that a model file is compiled for: those it declares, and those that its user gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcc.dtype import full_name
from pcc.errors import PccError
from pcc.frontend.inputs import check_input, example_of_batch, example_tensor

MOST_NUMBERS = 2**28
"""Of an input: 1 GiB as fp32, as the command line has it."""


@dataclass(frozen=True)
class Declared:
    """An input as its file declares it."""

    name: str
    sizes: tuple[int | str, ...] | None
    """A number, or the name of a size that is open; None if not even their count is declared."""
    dtype: torch.dtype

    @property
    def is_open(self) -> bool:
        return self.sizes is None or any(isinstance(size, str) for size in self.sizes)

    def of_batch(self, batch: int, what: str, any_batch: bool = False) -> "Declared":
        """The input for a number of images. `PccError` if the file fixes another, unless ``any_batch``."""
        if not self.sizes:
            return self
        if isinstance(self.sizes[0], int) and self.sizes[0] != batch and not any_batch:
            raise PccError(
                f"{what} fixes the batch: it takes {self}; for any batch up to a maximum, export it with the first "
                "dimension left open"
            )
        first = self.sizes[0] if isinstance(self.sizes[0], str) and self.sizes[0] != "?" else None
        return Declared(self.name, (batch, *(batch if size == first else size for size in self.sizes[1:])), self.dtype)

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(map(str, self.sizes)) if self.sizes is not None else '?'})"


def chosen_examples(
    declared: Sequence[Declared], examples: Any, what: str, batch: int | None = None, any_batch: bool = False
) -> list[Tensor]:
    """One example for each input: what the user gives, checked against the file, or zeros of the declared shape; with
    ``batch``, of so many images.

    With ``any_batch`` that may be another number than the file fixes. `PccError` that lists all inputs with open sizes
    if some are not given, and for examples that do not fit.
    """
    for entry in declared:
        check_input(entry.name, torch.empty(1, dtype=entry.dtype))
    if batch is not None:
        declared = [entry.of_batch(batch, what, any_batch) for entry in declared]
    by_name = _by_name(declared, examples, what, batch)
    still_open = [entry for entry in declared if entry.name not in by_name and entry.is_open]
    if still_open:
        sizes = still_open[0].sizes or (1, 3, 224, 224)
        example = ",".join(
            str(size if isinstance(size, int) else 224 if place else 1) for place, size in enumerate(sizes)
        )
        wanted = f"give --input-shape {still_open[0].name}={example}{_batch_hint(still_open, batch)}"
        raise PccError(f"{what} leaves sizes of its inputs open: {'; '.join(map(str, still_open))}; {wanted}")
    for entry in declared:
        if entry.name not in by_name and prod(int(size) for size in entry.sizes or ()) > MOST_NUMBERS:
            raise PccError(
                f"{what} takes {entry}: that is more than {MOST_NUMBERS:,} numbers, too large to be compiled"
            )
    return [
        by_name[entry.name]
        if entry.name in by_name
        else torch.zeros([int(size) for size in entry.sizes or ()], dtype=entry.dtype)
        for entry in declared
    ]


def _batch_hint(still_open: Sequence[Declared], batch: int | None) -> str:
    only_first = all(entry.sizes and not any(isinstance(size, str) for size in entry.sizes[1:]) for entry in still_open)
    return ", or compile it with --max-batch N to run any batch up to N" if batch is None and only_first else ""


def _by_name(declared: Sequence[Declared], examples: Any, what: str, batch: int | None) -> dict[str, Tensor]:
    if examples is None:
        return {}
    if isinstance(examples, Tensor | np.ndarray):
        examples = (examples,)
    names = [entry.name for entry in declared]
    if isinstance(examples, Mapping):
        if unknown := [name for name in examples if name not in names]:
            raise PccError(f"{what} has no input '{unknown[0]}': it has {', '.join(names)}")
        by_name = {str(name): example for name, example in examples.items()}
    else:
        if len(examples) != len(declared):
            raise PccError(
                f"{what} has {len(declared)} input{'s' if len(declared) != 1 else ''} ({', '.join(names)}), not "
                f"{len(examples)}"
            )
        by_name = dict(zip(names, examples, strict=True))
    return {
        entry.name: _checked(entry, names.index(entry.name), by_name[entry.name], what, batch)
        for entry in declared
        if entry.name in by_name
    }


def _checked(entry: Declared, position: int, value: Any, what: str, batch: int | None) -> Tensor:
    """An example that fits an input."""
    example = example_tensor(position, value)
    if batch is not None:
        example = example_of_batch(example, batch)
    if not _fits(tuple(example.shape), entry.sizes):
        raise PccError(f"{what} takes {entry}: {','.join(map(str, example.shape))} does not fit")
    if example.is_meta:  # a shape alone; the type is the file's
        example = torch.zeros(example.shape, dtype=entry.dtype)
    if example.dtype != entry.dtype:
        raise PccError(f"{what} takes {entry.name} as {full_name(entry.dtype)}, not {full_name(example.dtype)}")
    check_input(entry.name, example)
    return example


def _fits(shape: tuple[int, ...], sizes: tuple[int | str, ...] | None) -> bool:
    """Whether a shape is one that was declared: sizes of one name are the same."""
    if sizes is None:
        return True
    bound: dict[str, int] = {}
    return len(shape) == len(sizes) and all(
        size == have if isinstance(size, int) else size == "?" or bound.setdefault(size, have) == have
        for have, size in zip(shape, sizes, strict=True)
    )
