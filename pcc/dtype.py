"""Element types: what one element of a tensor is, and what NumPy, PyTorch, TVM and C call it.

A new one is a row of ``DTYPES`` and its name in ``enum pcc_dtype`` (`runtime/pcc.h`); kernels say which they take.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pcc.errors import PccError

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class DType:
    """An element type. Elements lie in memory little-endian, whatever the target."""

    name: str
    """As NumPy, PyTorch and TVM call it: ``float32``."""
    short: str
    """As dumps and signatures of kernels have it: ``f32``."""
    c: str
    """The C type."""
    bytes: int
    code: int
    """Its value in ``enum pcc_dtype``; never changes."""
    is_float: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def c_name(self) -> str:
        """Its name in ``enum pcc_dtype``."""
        return f"PCC_{self.name.upper()}"

    @property
    def numpy(self) -> "np.dtype":
        import numpy as np

        return np.dtype(self.name).newbyteorder("<")

    @property
    def torch(self) -> "torch.dtype":
        import torch

        return getattr(torch, self.name)

    def nearest(self, value: float) -> float:
        """The finite number of a floating-point type that stands for a literal: its largest for one beyond it."""
        import numpy as np

        largest = float(np.finfo(self.numpy).max)
        return max(-largest, min(largest, value))

    def tir(self, lanes: int = 1) -> str:
        """TVM's name of a scalar, or of a vector of so many lanes."""
        return self.name if lanes == 1 else f"{self.name}x{lanes}"


FLOAT32 = DType("float32", "f32", "float", 4, code=1, is_float=True)
FLOAT16 = DType("float16", "f16", "_Float16", 2, code=2, is_float=True)
INT8 = DType("int8", "i8", "int8_t", 1, code=3)
UINT8 = DType("uint8", "u8", "uint8_t", 1, code=4)
INT32 = DType("int32", "i32", "int32_t", 4, code=5)
INT64 = DType("int64", "i64", "int64_t", 8, code=6)

DTYPES: dict[str, DType] = {dtype.name: dtype for dtype in (FLOAT32, FLOAT16, INT8, UINT8, INT32, INT64)}


REALS: tuple[DType, ...] = tuple(dtype for dtype in DTYPES.values() if dtype.is_float)
"""What activations and weights may be. A kernel that multiplies and adds in whatever type it is asked for takes all of
them."""


def dtype_named(name: str) -> DType:
    """The element type of that name; `PccError` where there is none."""
    if name not in DTYPES:
        raise PccError(f"unknown element type '{name}': pcc has {', '.join(DTYPES)}")
    return DTYPES[name]


def dtype_of(found: object) -> DType:
    """The element type of an array's or a tensor's ``dtype``; `PccError` for one that pcc does not have."""
    return dtype_named(full_name(found))


def full_name(found: object) -> str:
    """A ``dtype`` of an array or a tensor as NumPy calls it (``float64``), whether pcc has it or not."""
    return str(found).removeprefix("torch.")


def short_name(found: object) -> str:
    """A ``dtype`` as dumps have it; the whole name of one that pcc does not have, which an imported graph may use."""
    name = full_name(found)
    return DTYPES[name].short if name in DTYPES else name
