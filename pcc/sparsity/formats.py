"""Weight formats: how the weight of a layer is stored when many of its entries are zero, as arrays that ``pcc::unpack``
takes.

A format is a file with ``FORMAT`` in it, and a line of ``OWN``. What it stores is a frozen dataclass: ``shape`` of the
dense weight, (O, I/groups, kh, kw) or (M, K), the convolution's ``groups`` (1 of a linear layer), then whole numbers
and arrays; the graph has them as they stand, and gets the dataclass back from them.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, get_type_hints

import numpy as np

from pcc.errors import PccError

OWN: dict[str, str] = {"fkw": "fkw_format", "csr": "csr"}
"""The formats, each ``FORMAT`` of a module in `pcc.sparsity`."""

DENSE = "dense"
"""What the weight that is no packed one is called: an array of that shape."""


class PackedWeight(Protocol):
    """What a format stores."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(O, I/groups, kh, kw) or (M, K) of the dense weight."""
        ...

    @property
    def groups(self) -> int: ...


@dataclass(frozen=True)
class WeightFormat:
    """A format by what it does; what it stores is a ``stored``."""

    name: str
    stored: type
    pack: Callable[[np.ndarray, int, np.ndarray | None], Any]
    """(weight, groups, order) to a ``stored``, or to a text: why the zeros of the weight do not fit. ``order`` (O,) is
    the filter of each place, if known."""
    unpack: Callable[[Any], np.ndarray]
    """The dense weight, fp32: what the packed one means."""
    nonzeros: Callable[[Any], int]

    @property
    def arrays(self) -> tuple[str, ...]:
        """The names of its arrays, in order."""
        return tuple(name for name, kind in get_type_hints(self.stored).items() if kind is np.ndarray)

    @property
    def numbers(self) -> tuple[str, ...]:
        """The names of its whole numbers, in order."""
        return tuple(field.name for field in fields(self.stored) if field.name not in ("shape", "groups", *self.arrays))

    def packed(self, shape: Sequence[int], groups: int, numbers: Sequence[int], arrays: Sequence[np.ndarray]) -> Any:
        """A packed weight from its parts."""
        named = dict(zip((*self.numbers, *self.arrays), (*numbers, *arrays), strict=True))
        return self.stored(shape=tuple(map(int, shape)), groups=groups, **named)


def format_named(name: str) -> WeightFormat:
    """The format of that name; `PccError` where there is none."""
    if name not in OWN:
        raise PccError(f"unknown weight format '{name}': choose one of {', '.join(OWN)}")
    return importlib.import_module(f"pcc.sparsity.{OWN[name]}").FORMAT
