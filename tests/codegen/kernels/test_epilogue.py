"""Every activation, vector and scalar, against float64 PyTorch; what becomes of NaN and infinity; bias and residual.

Largest errors over a million values in [-30, 30], on AVX-512 and AVX2: leaky_relu, sigmoid, silu and tanh 0.60, 2.32,
2.85 and 1.23 units in the last place (PyTorch's own fp32: 0.60, 2.32, 2.39, 0.51). `test_numerics` has the bounds of
all of them over the whole of fp32.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from pcc.codegen.isa import isa_named
from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.native import run_native
from pcc.codegen.program import ProgramBuilder
from pcc.dtype import FLOAT32
from pcc.ir.activation import _REFERENCE, Activation
from pcc.target import Target

from .support import ALL_TARGETS, X86_TARGETS, assembly, external_calls, rng

if TYPE_CHECKING:
    from pcc.codegen.builder import KernelBuilder

ACTIVATIONS = [
    "none",
    "relu",
    "clip(0,6)",
    "clip(-1.5,2)",
    "leaky_relu(0.1)",
    "hardswish",
    "hardsigmoid",
    "silu",
    "sigmoid",
    "tanh",
    "gelu",
    "softplus(1,20)",
    "softplus(2,1.5)",
]
ON_X86 = pytest.mark.parametrize("target", X86_TARGETS, ids=lambda target: target.cpu)
FORMS = pytest.mark.parametrize("vector", [True, False], ids=["vector", "scalar"])


@dataclass(frozen=True)
class Apply:
    """``y = epilogue(x, r)``, a vector (or a number) an item."""

    epilogue: Epilogue
    vector: bool

    @property
    def name(self) -> str:
        return f"test_epilogue_{self.epilogue.symbol}_{'vector' if self.vector else 'scalar'}"

    params = (Param("y", "f32*", writes=True), Param("x", "f32*"), Param("r", "f32*"))

    def body(self, k: "KernelBuilder") -> None:
        lanes = k.lanes if self.vector else 1
        with k.work() as item:
            value, residual = (k.load(k[name], item * lanes, lanes) for name in "xr")
            k.store(k["y"], item * lanes, self.epilogue.apply(k, value, residual, lanes), lanes)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        raise NotImplementedError


def apply(epilogue: Epilogue, x: np.ndarray, r: np.ndarray, target: Target, vector: bool) -> np.ndarray:
    """What the machine makes of values (a multiple of 16 of them) and residuals."""
    b = ProgramBuilder("test", isa_named(target.isa))
    y = b.tensor("y", x.shape)
    b.call(
        Apply(epilogue, vector),
        {"y": y, "x": b.input("x", x.shape), "r": b.input("r", x.shape)},
        work=len(x) // (b.isa.lanes(FLOAT32) if vector else 1),
    )
    b.output("y", y)
    (result,) = run_native(b.build(), [x, r], target)
    return result


def test_all_activations_are_tested() -> None:
    assert {Activation.parse(text).kind for text in ACTIVATIONS} == set(_REFERENCE)


@ON_X86
@FORMS
@pytest.mark.parametrize("text", ACTIVATIONS)
def test_accuracy(text: str, vector: bool, target: Target) -> None:
    activation = Activation.parse(text)
    x = np.linspace(-30, 30, 1 << 17).astype(np.float32)
    values = torch.from_numpy(x).double()
    want = activation(values).numpy()
    got = apply(Epilogue(activation=activation), x, x, target, vector)
    if text == "gelu":  # PyTorch computes 1 + erf, which cancels even in float64
        want = (values * torch.special.erfc(-values / 2**0.5) / 2).numpy()
    np.testing.assert_allclose(got, want, rtol=8e-7 if text == "gelu" else 3.3e-7, atol=1e-37)


@ON_X86
@FORMS
@pytest.mark.parametrize("text", ACTIVATIONS)
def test_nan_stays_and_infinity_is_as_in_pytorch(text: str, vector: bool, target: Target) -> None:
    activation = Activation.parse(text)
    x = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0, 1e-45, -1e-45] * 2, np.float32)
    got = apply(Epilogue(activation=activation), x, x, target, vector)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(
            got, activation(torch.from_numpy(x).double()).numpy().astype(np.float32), rtol=3e-7, atol=2e-45
        )


@ON_X86
@FORMS
def test_residual_is_added_before_the_activation(vector: bool, target: Target) -> None:
    x, r = rng().standard_normal((2, 4096), np.float32)
    got = apply(Epilogue(residual=True, activation=Activation.parse("relu")), x, r, target, vector)
    np.testing.assert_array_equal(got, np.maximum(x + r, 0))


def test_reference_agrees_with_the_definition() -> None:
    x, r = rng().standard_normal((2, 64), np.float32)
    np.testing.assert_array_equal(Epilogue(True, Activation.parse("clip(0,1)")).reference(x, r), np.clip(x + r, 0, 1))
    assert Epilogue(True, Activation.parse("clip(0,6)")).symbol == "add_clip_0_6"


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
def test_objects_need_nothing_and_relu_is_one_instruction(target: Target) -> None:
    for text in ACTIVATIONS:
        for vector in (True, False):
            assert external_calls(assembly(Apply(Epilogue(True, Activation.parse(text)), vector), target)) == set()
    relu = assembly(Apply(Epilogue(activation=Activation("relu")), True), target)
    assert ("fmax\tv" if target.isa == "neon" else "vmaxps") in relu
    assert "vcmp" not in relu
    assert "fcm" not in relu
