"""Elementary functions over dense ranges against float64, and what they make of the values at the ends.

Largest errors over a million values of each range, in units in the last place of the exact result (the same on AVX-512
and AVX2, vector and scalar):

* exp 0.97, exp_bounded 1.00, log 0.88 (denormals included), sqrt 0.50
* tanh 1.26 (worst at 0.64), sigmoid 2.39 (worst at -16.6)
* expm1 and log1p below 2.0, gelu 6.3 (worst at 0.03)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from pcc.codegen.isa import isa_named
from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels import math
from pcc.codegen.native import run_native
from pcc.codegen.program import ProgramBuilder
from pcc.target import Target

from .support import ALL_TARGETS, LANES, X86_TARGETS, assembly, external_calls

if TYPE_CHECKING:
    from pcc.codegen.builder import KernelBuilder

MEANING: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "exp": torch.exp,
    "exp_bounded": torch.exp,
    "log": torch.log,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "expm1": torch.expm1,
    "log1p": torch.log1p,
    "gelu": lambda x: x * torch.special.erfc(-x / 2**0.5) / 2,
    "sqrt": torch.sqrt,
}
ON_X86 = pytest.mark.parametrize("target", X86_TARGETS, ids=lambda target: target.cpu)
POINTS = 1 << 20


@dataclass(frozen=True)
class Apply:
    """``y = function(x)``, a vector (or a number) an item."""

    function: str
    vector: bool

    @property
    def name(self) -> str:
        return f"test_{self.function}_{'vector' if self.vector else 'scalar'}"

    params = (Param("y", "f32*", writes=True), Param("x", "f32*"))

    def body(self, k: "KernelBuilder") -> None:
        lanes = k.lanes if self.vector else 1
        with k.work() as item:
            value = k.let(k.load(k["x"], item * lanes, lanes))
            k.store(k["y"], item * lanes, getattr(math, self.function)(k, value, lanes), lanes)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        raise NotImplementedError


def apply(function: str, x: np.ndarray, target: Target, vector: bool = True) -> np.ndarray:
    """The function of each value as the machine computes it, in float64."""
    lanes = LANES[target.isa] if vector else 1
    padded = np.pad(x, (0, -len(x) % lanes))
    b = ProgramBuilder("test", isa_named(target.isa))
    y = b.tensor("y", padded.shape)
    b.call(Apply(function, vector), {"y": y, "x": b.input("x", padded.shape)}, work=len(padded) // lanes)
    b.output("y", y)
    (result,) = run_native(b.build(), [padded], target)
    return result[: len(x)].astype(np.float64)


def exact(function: str, x: np.ndarray) -> np.ndarray:
    return MEANING[function](torch.from_numpy(x).double()).numpy()


def spread(low: float, high: float) -> np.ndarray:
    """Evenly spaced values; evenly spaced exponents where both ends are positive and far apart."""
    space = np.geomspace if low > 0 and high / low > 1000 else np.linspace
    return space(low, high, POINTS).astype(np.float32)


RANGES = [  # function, low, high, units in the last place allowed
    ("exp", -103.9, 88.7, 1.0),
    ("exp", -1.0, 1.0, 1.0),
    ("exp_bounded", -87.3, 88.37, 1.1),
    ("log", 1e-44, 3.4e38, 1.0),
    ("log", 0.5, 2.0, 1.0),
    ("tanh", -10.0, 10.0, 1.5),
    ("tanh", 1e-30, 1.0, 1.5),
    ("sigmoid", -88.3, 20.0, 2.5),
    ("expm1", -20.0, 88.7, 2.0),
    ("expm1", 1e-30, 1.0, 2.0),
    ("log1p", -0.9999, 2.0, 2.0),
    ("log1p", 1e-30, 3.4e38, 2.0),
    ("gelu", -13.0, 13.0, 7.0),
    ("gelu", 1e-30, 1.0, 7.0),
    ("sqrt", 1e-38, 3.4e38, 0.5),
]


@ON_X86
@pytest.mark.parametrize(("function", "low", "high", "allowed"), RANGES)
def test_accuracy(function: str, low: float, high: float, allowed: float, target: Target) -> None:
    x = spread(low, high)
    want = exact(function, x)
    error = np.abs(apply(function, x, target) - want) / np.spacing(np.abs(want).astype(np.float32))
    assert error.max() <= allowed, f"{error.max():.2f} at {x[error.argmax()]!r}"


@ON_X86
@pytest.mark.parametrize("function", MEANING)
def test_scalars_as_vectors(function: str, target: Target) -> None:
    x = np.linspace(-110.0, 110.0, 4001).astype(np.float32)
    np.testing.assert_array_equal(apply(function, x, target, vector=False), apply(function, x, target))


INFINITY, NAN, TINY = np.inf, np.nan, 1e-45
ENDS: dict[str, list[tuple[float, float]]] = {
    "exp": [(INFINITY, INFINITY), (-INFINITY, 0.0), (89.0, INFINITY), (-105.0, 0.0), (0.0, 1.0), (NAN, NAN)],
    "exp_bounded": [(INFINITY, INFINITY), (88.8, INFINITY), (0.0, 1.0), (NAN, NAN)],
    "log": [
        (INFINITY, INFINITY),
        (0.0, -INFINITY),
        (-0.0, -INFINITY),
        (-TINY, NAN),
        (-1.0, NAN),
        (-INFINITY, NAN),
        (1.0, 0.0),
        (NAN, NAN),
    ],
    "tanh": [
        (INFINITY, 1.0),
        (-INFINITY, -1.0),
        (50.0, 1.0),
        (-3e38, -1.0),
        (0.0, 0.0),
        (-0.0, -0.0),
        (NAN, NAN),
        (TINY, TINY),
    ],
    "sigmoid": [(INFINITY, 1.0), (-INFINITY, 0.0), (200.0, 1.0), (-200.0, 0.0), (0.0, 0.5), (NAN, NAN)],
    "expm1": [
        (INFINITY, INFINITY),
        (-INFINITY, -1.0),
        (89.0, INFINITY),
        (-3e38, -1.0),
        (0.0, 0.0),
        (TINY, TINY),
        (NAN, NAN),
    ],
    "log1p": [
        (INFINITY, INFINITY),
        (-1.0, -INFINITY),
        (-1.5, NAN),
        (-INFINITY, NAN),
        (0.0, 0.0),
        (-TINY, -TINY),
        (NAN, NAN),
    ],
    "gelu": [(INFINITY, INFINITY), (-INFINITY, NAN), (3e38, 3e38), (-3e38, -0.0), (0.0, 0.0), (-0.0, -0.0), (NAN, NAN)],
    "sqrt": [(INFINITY, INFINITY), (-1.0, NAN), (0.0, 0.0), (-0.0, -0.0), (NAN, NAN)],
}


@ON_X86
@pytest.mark.parametrize("vector", [True, False], ids=["vector", "scalar"])
@pytest.mark.parametrize("function", ENDS)
def test_ends(function: str, vector: bool, target: Target) -> None:
    x, want = (np.array(values, np.float32) for values in zip(*ENDS[function], strict=True))
    got = apply(function, x, target, vector)
    np.testing.assert_array_equal(got, want)
    signed = want == 0
    np.testing.assert_array_equal(np.signbit(got[signed]), np.signbit(want[signed]))


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
def test_objects_need_nothing(target: Target) -> None:
    for function in MEANING:
        for vector in (True, False):
            assert external_calls(assembly(Apply(function, vector), target)) == set()
