"""Every function pcc emits for the elements of a tensor, over the whole of fp32, against float64, in units in the last
place.

The values are spread evenly over the bit patterns of fp32, so over its exponents: both signs, denormals, zeros,
infinities, NaN. Bounds are stated for each function. A result that should be denormal may be off by its own size (it
may be flushed to 0), and one whose argument lost its digits on the way (e^x of a rounded x) is bounded by what that
costs.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pcc.codegen.isa import isa_named
from pcc.codegen.kernels.elementwise import emit_elementwise
from pcc.codegen.layers import Elementwise
from pcc.codegen.native import run_native
from pcc.codegen.program import ProgramBuilder
from pcc.frontend.torch_module import import_module
from pcc.ir.activation import _REFERENCE
from pcc.ir.expression import _ARITHMETIC
from pcc.passes.canonicalize import Canonicalize
from pcc.passes.decompose import Decompose
from pcc.target import Target
from tests.passes.find import call

from .support import X86_TARGETS

Function = Callable[[Any], Any]
TINY = float(np.finfo(np.float32).tiny)


def whole_range(count: int = 1 << 18) -> np.ndarray:
    """fp32 values over all exponents of both signs, and the special ones."""
    magnitudes = np.linspace(0, 0x7F7FFFFF, count // 2).astype(np.uint32).view(np.float32)
    special = np.array([0.0, 1.0, 3.0, 6.0, 20.0, np.inf, np.nan, TINY, 1e-45, np.finfo(np.float32).max], np.float32)
    near = np.linspace(0, 110, 20000).astype(np.float32)
    values = np.concatenate([magnitudes, special, near])
    return np.concatenate([values, -values])


def power(x: np.ndarray, exponent: float) -> np.ndarray:
    """NaN for all negative numbers; C has infinity for minus infinity, as if it were even."""
    return np.where(x < 0, np.nan, np.abs(x) ** exponent)


def softplus(x: np.ndarray, beta: float = 1.0) -> np.ndarray:
    y = x * beta
    return (np.maximum(y, 0) + np.log1p(np.exp(-np.abs(y)))) / beta


def normal(x: np.ndarray) -> np.ndarray:
    return torch.special.erfc(torch.from_numpy(-x / np.sqrt(2))).numpy() / 2


def logistic(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


def gelu_tanh_argument(x: np.ndarray) -> np.ndarray:
    return 2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)


EXPRESSIONS: list[tuple[str, Function, Any, float]] = [
    # text, meaning in float64, units in the last place allowed, below which results may be flushed to 0
    ("add(x0,0.1)", lambda x: x + np.float32(0.1), 0.5, 0),
    ("sub(x0,0.1)", lambda x: x - np.float32(0.1), 0.5, 0),
    ("mul(x0,0.1)", lambda x: x * np.float32(0.1), 0.5, 0),
    ("div(x0,3)", lambda x: x / 3, 0.5, 0),
    ("fmod(x0,3)", lambda x: np.fmod(x, 3), lambda x: np.where(np.abs(x) < 3 * 2.0**24, 0, np.inf), 0),
    ("max(x0,0.5)", lambda x: np.maximum(x, 0.5), 0, 0),
    ("min(0.5,x0)", lambda x: np.minimum(x, 0.5), 0, 0),
    ("neg(x0)", lambda x: -x, 0, 0),
    ("abs(x0)", np.abs, 0, 0),
    ("exp(x0)", np.exp, 1.0, 0),
    ("expm1(x0)", np.expm1, 2.0, 0),
    ("log(x0)", np.log, 1.0, 0),
    ("log1p(x0)", np.log1p, 2.0, 0),
    ("sqrt(x0)", np.sqrt, 0.5, 0),
    ("rsqrt(x0)", lambda x: 1 / np.sqrt(x), 1.5, 0),
    ("reciprocal(x0)", lambda x: 1 / x, 0.5, 0),
    ("pow(x0,3)", lambda x: x**3, 2.0, TINY),
    ("pow(x0,-3)", lambda x: x**-3.0, 6.0, TINY),
    ("pow(x0,2.5)", lambda x: power(x, 2.5), 3.0, TINY),
    ("pow(x0,65)", lambda x: x**65, 1.0, 0),
    ("pow(x0,0.3)", lambda x: power(x, float(np.float32(0.3))), 1.0, 0),
    ("pow(x0,-0.75)", lambda x: power(x, -0.75), 4.0, TINY),
    ("pow(2.5,x0)", lambda x: 2.5**x, 1.0, 0),
    (
        "pow(x0,x0)",
        lambda x: np.where(
            (x < 0) & (x != np.trunc(x)), np.nan, np.abs(x) ** x * np.where((x < 0) & (x % 2 == 1), -1.0, 1.0)
        ),
        1.0,
        0,
    ),
    ("exp2(x0)", np.exp2, 1.5, 0),
    ("sin(x0)", np.sin, 2.5, 0),
    ("cos(x0)", np.cos, 2.5, 0),
    ("atan(x0)", np.arctan, 2.0, 0),
    ("erf(x0)", lambda x: torch.erf(torch.from_numpy(x)).numpy(), 3.0, 0),
    ("floor(x0)", np.floor, 0, 0),
    ("ceil(x0)", np.ceil, 0, 0),
    ("trunc(x0)", np.trunc, 0, 0),
    ("round(x0)", np.round, 0, 0),
    ("lt(x0,0.5)", lambda x: (x < 0.5) * 1.0, 0, 0),
    ("le(x0,1)", lambda x: (x <= 1) * 1.0, 0, 0),
    ("gt(x0,0.5)", lambda x: (x > 0.5) * 1.0, 0, 0),
    ("ge(x0,1)", lambda x: (x >= 1) * 1.0, 0, 0),
    ("eq(x0,1)", lambda x: (x == 1) * 1.0, 0, 0),
    ("ne(x0,1)", lambda x: (x != 1) * 1.0, 0, 0),
    ("ne(x0,x0)", lambda x: np.isnan(x) * 1.0, 0, 0),
    ("le(x0,x0)", lambda x: (x <= x) * 1.0, 0, 0),
    ("lt(x0,x0)", lambda x: (x < x) * 1.0, 0, 0),
    ("where(x0,2,3)", lambda x: np.where(x != 0, 2.0, 3.0), 0, 0),
    ("relu(x0)", lambda x: np.maximum(x, 0), 0, 0),
    ("clip(x0,-1,6)", lambda x: np.clip(x, -1, 6), 0, 0),
    ("leaky_relu(x0,0.1)", lambda x: np.where(x < 0, x * np.float32(0.1), x), 0.5, 0),
    ("hardsigmoid(x0)", lambda x: np.clip(x + 3, 0, 6) / 6, 2.0, 0),
    ("hardswish(x0)", lambda x: x * (np.clip(x + 3, 0, 6) / 6), 2.5, 0),
    ("sigmoid(x0)", logistic, 3.0, TINY),
    ("prelu(x0,0.1)", lambda x: np.where(x < 0, x * np.float32(0.1), x), 0.5, 0),
    ("swish(x0,2)", lambda x: x * logistic(x * 2), 4.0, 100 * TINY),  # x * 2 is exact
    ("silu(x0)", lambda x: x * logistic(x), 4.0, 100 * TINY),
    ("tanh(x0)", np.tanh, 1.5, 0),
    ("gelu(x0)", lambda x: x * normal(x), 7.0, 0),
    ("softplus(x0,1,20)", softplus, 3.0, 0),
    ("softplus(x0,0.3,20)", lambda x: softplus(x, float(np.float32(0.3))), lambda x: 4 + np.abs(0.3 * x), 0),
    ("softplus(x0,1,1)", lambda x: np.where(x > 1, x, softplus(x)), 3.0, 0),
]


def signed(function: Function) -> Function:
    return lambda x: np.copysign(function(np.abs(x)), x)


FUNCTIONS: list[tuple[Any, Function, float]] = [
    # PyTorch's, meaning in float64, units in the last place allowed
    (lambda x: x.tan(), np.tan, 4.0),
    (lambda x: x.asin(), np.arcsin, 4.0),
    (lambda x: x.acos(), np.arccos, 4.0),
    (lambda x: x.sinh(), np.sinh, 4.0),
    (lambda x: x.cosh(), np.cosh, 4.0),
    (lambda x: x.asinh(), np.arcsinh, 4.0),
    (lambda x: x.acosh(), np.arccosh, 4.0),
    (lambda x: x.atanh(), signed(np.arctanh), 4.0),
    (lambda x: 0.3**x, lambda x: float(np.float32(0.3)) ** x, 1.0),
]

LAYERS: list[tuple[nn.Module, Function, Any, float]] = [
    (nn.Mish(), lambda x: x * np.tanh(softplus(x)), 6.0, 100 * TINY),
    (nn.LogSigmoid(), lambda x: -softplus(-x), 3.0, 0),
    (nn.ELU(0.7), lambda x: np.where(x > 0, x, np.float32(0.7) * np.expm1(np.minimum(x, 0))), 3.0, 0),
    (
        nn.SELU(),
        lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0))),
        4.0,
        0,
    ),
    (
        nn.CELU(1.3),
        lambda x: np.where(x > 0, x, 1.3 * np.expm1(np.minimum(x, 0) / 1.3)),
        lambda x: 4 + np.minimum(np.abs(x), 4),
        0,
    ),
    (
        nn.GELU("tanh"),
        lambda x: x * logistic(gelu_tanh_argument(x)),
        lambda x: 6 + 3 * np.abs(gelu_tanh_argument(x)),
        100 * TINY,
    ),
]


def run(texts: list[str], x: np.ndarray, target: Target) -> list[np.ndarray]:
    b = ProgramBuilder("test", isa_named(target.isa))
    view = b.input("x", x.shape)
    for index, text in enumerate(texts):
        y = b.tensor(f"y{index}", x.shape)
        emit_elementwise(Elementwise(f"f{index}", (view,), y, text), b)
        b.output(f"y{index}", y)
    return run_native(b.build(), [x], target)


def check_units(text: str, x: np.ndarray, got: np.ndarray, meaning: Function, allowed: Any, flushed: float) -> None:
    """Every value within the allowed units, NaN where float64 has NaN (or 0 times infinity), infinity where the exact
    result rounds to it."""
    with np.errstate(all="ignore"):
        exact = meaning(x.astype(np.float64))
        bound: Any = allowed(x.astype(np.float64)) if callable(allowed) else np.full(x.shape, float(allowed))
        rounded = exact.astype(np.float32)
        unknown = np.isnan(exact)
        np.testing.assert_array_equal(np.isnan(got)[~unknown], False, text)
        np.testing.assert_array_equal(np.isnan(got)[np.isnan(x) & unknown], True, text)
        infinite = np.isinf(rounded) & ~unknown
        near_end = np.abs(exact) * (1 - (bound + 1) * 2**-23) < np.finfo(np.float32).max
        assert ((got == rounded) | near_end | ~infinite).all(), text
        usual = ~unknown & ~infinite
        units = np.abs(got.astype(np.float64) - exact) / np.spacing(
            np.maximum(np.abs(rounded), TINY).astype(np.float32)
        )
        small = np.abs(exact) < flushed
        units = np.where(small & (np.abs(got) <= flushed), 0, units)
        overflowed = np.isinf(got) & near_end & (np.abs(exact) * (1 + (bound + 1) * 2**-23) > np.finfo(np.float32).max)
        excess = np.where(usual & ~overflowed, units - np.maximum(bound, 1e-3), -1)
    worst = int(np.nanargmax(excess))
    assert not (excess > 0).any(), (
        f"{text}: {units[worst]:.2f} units at {x[worst]!r}: {got[worst]!r}, not {exact[worst]!r}"
    )


@pytest.mark.parametrize("target", X86_TARGETS, ids=lambda target: target.cpu)
def test_every_function_over_the_whole_range(target: Target) -> None:
    x = whole_range()
    results = run([text for text, *_ in EXPRESSIONS], x, target)
    for (text, meaning, allowed, flushed), got in zip(EXPRESSIONS, results, strict=True):
        check_units(text, x, got, meaning, allowed, flushed)


@pytest.mark.parametrize("target", X86_TARGETS, ids=lambda target: target.cpu)
def test_every_composed_activation_over_the_whole_range(target: Target) -> None:
    x = whole_range()
    texts = [expression_of(layer) for layer, *_ in LAYERS]
    for text, (_, meaning, allowed, flushed), got in zip(texts, LAYERS, run(texts, x, target), strict=True):
        check_units(text, x, got, meaning, allowed, flushed)


@pytest.mark.parametrize("target", X86_TARGETS, ids=lambda target: target.cpu)
def test_every_composed_function_over_the_whole_range(target: Target) -> None:
    x = whole_range()
    texts = [expression_of(function) for function, *_ in FUNCTIONS]
    for text, (_, meaning, allowed), got in zip(texts, FUNCTIONS, run(texts, x, target), strict=True):
        check_units(text, x, got, meaning, allowed, 0)


def power_of(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """C's, but for minus infinity to a broken exponent: NaN, as for all negative numbers."""
    return np.where((x == -np.inf) & (y != np.trunc(y)), np.nan, np.power(x, y))


def angle_of(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of zeros that have no sign."""
    return np.arctan2(x + 0.0, y + 0.0)


def test_two_operands_that_have_special_cases() -> None:
    """Powers and angles of every pair of these."""
    values = np.array(
        [0.0, -0.0, 0.5, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.3, 1e30, 1e-30, -1e30, np.inf, -np.inf, np.nan], np.float32
    )
    a, b = (part.ravel().copy() for part in np.meshgrid(values, values))
    for function, meaning in ((lambda x, y: x**y, power_of), (lambda x, y: torch.atan2(x, y), angle_of)):
        builder = ProgramBuilder("test", isa_named(X86_TARGETS[0].isa))
        views = tuple(builder.input(name, a.shape) for name in "xy")
        y = builder.tensor("z", a.shape)
        emit_elementwise(Elementwise("f", views, y, expression_of(function, 2)), builder)
        builder.output("z", y)
        (got,) = run_native(builder.build(), [a, b], X86_TARGETS[0])
        with np.errstate(all="ignore"):
            wanted = meaning(a.astype(np.float64), b.astype(np.float64)).astype(np.float32)
        np.testing.assert_allclose(got, wanted, rtol=3e-7)


REMAINDERS = [
    lambda x, y: torch.fmod(x, y),
    lambda x, y: torch.remainder(x, y),
    lambda x, y: torch.div(x, y, rounding_mode="floor"),
]


@pytest.mark.parametrize("target", X86_TARGETS, ids=lambda target: target.cpu)
def test_remainders_are_exact(target: Target) -> None:
    """As PyTorch's, also where the quotient is rounded to a whole number that it does not reach (1 by 0.1)."""
    generator = torch.Generator().manual_seed(0)
    tenths, whole = torch.arange(-400, 400) / 10, torch.arange(-400, 400).float()
    special = torch.tensor([0.0, -0.0, 0.1, -0.1, 1.0, -1.0, 0.7, 3.0, torch.inf, -torch.inf, torch.nan])
    x = torch.cat([tenths, whole, special, torch.randn(4000, generator=generator) * 100])
    a, b = x[torch.randint(len(x), (2, 1 << 16), generator=generator)]
    a, b = torch.cat([a, special.repeat(len(special))]), torch.cat([b, special.repeat_interleave(len(special))])
    for function in REMAINDERS:
        builder = ProgramBuilder("test", isa_named(target.isa))
        views = tuple(builder.input(name, a.shape) for name in "xy")
        z = builder.tensor("z", a.shape)
        emit_elementwise(Elementwise("f", views, z, expression_of(function, 2)), builder)
        builder.output("z", z)
        (got,) = run_native(builder.build(), [a.numpy(), b.numpy()], target)
        np.testing.assert_array_equal(got, function(a, b).numpy())


def expression_of(layer: Any, inputs: int = 1) -> str:
    """What canonicalize makes of a layer."""
    graph_module = import_module(layer, tuple(torch.zeros(2, 3) for _ in range(inputs)))
    Decompose()(graph_module)
    Canonicalize()(graph_module)
    nodes = [node for node in graph_module.graph.nodes if node.op == "call_function"]
    assert len(nodes) == 1, "more than an expression: fuse first"
    return str(call(graph_module, "pcc.elementwise").args[1])


def test_every_function_of_the_language_is_compared() -> None:
    compared = {text.split("(")[0] for text, *_ in EXPRESSIONS}
    assert compared == {*_ARITHMETIC, *_REFERENCE, "pow"} - {"none"}
