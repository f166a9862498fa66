"""Kernels whose work-items compute a number each: what they have in common."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.dtype import DType

if TYPE_CHECKING:
    from pcc.codegen.opencl.builder import DeviceKernelBuilder, Expr


class _OfNumbers:
    """A builder whose constants are numbers, for code that is written for vectors."""

    def __init__(self, k: "DeviceKernelBuilder") -> None:
        self._k = k

    def __getattr__(self, name: str) -> Any:
        return getattr(self._k, name)

    def __getitem__(self, name: str) -> Any:
        return self._k[name]

    def splat(self, value: "Expr", lanes: int = 1) -> "Expr":
        return self._k.splat(value, lanes)


def of_numbers(k: "DeviceKernelBuilder") -> "DeviceKernelBuilder":
    """The builder, for code of numbers."""
    return cast("DeviceKernelBuilder", _OfNumbers(k))


def tensor(name: str, dtype: DType, *, writes: bool = False) -> Param:
    """A tensor's parameter."""
    return Param(name, f"{dtype.short}*", writes)


def numbers(*names: str) -> tuple[Param, ...]:
    """Parameters that are whole numbers."""
    return tuple(map(Param, names))


def symbol_of(*dtypes: DType) -> str:
    """Element types as part of a kernel's name: one word where they are alike."""
    found = [dtype.short for dtype in dtypes]
    return "_".join(found[:1] if len(set(found)) == 1 else found)


def place(k: "DeviceKernelBuilder", width: "Expr", height: "Expr") -> "tuple[Expr, Expr, Expr]":
    """The item's place in the range; ends items outside of (width, height)."""
    x, y = k.item(0), k.item(1)
    k.end_unless(k.both(x < width, y < height))
    return x, y, k.item(2)


def whole_numbers(args: Mapping[str, Argument]) -> dict[str, int]:
    """The number arguments."""
    return {name: int(value) for name, value in args.items() if not isinstance(value, np.ndarray)}


def elements(start: int, sizes: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    """The elements of a buffer that a strided tensor has, in its shape."""
    places = np.array(start)
    for size, stride in zip(sizes, strides, strict=True):
        places = places[..., None] + np.arange(size) * stride
    return places
