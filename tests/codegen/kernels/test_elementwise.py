"""Fused elementwise chains: broadcasting, every function of the language, the code they become."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pcc.codegen.isa import isa_named
from pcc.codegen.kernels.elementwise import Map, emit_elementwise
from pcc.codegen.layers import Elementwise
from pcc.codegen.program import Program, ProgramBuilder
from pcc.target import Target

from .support import ALL_TARGETS, assembly, check, external_calls, padded_view, rng

Meaning = Callable[..., torch.Tensor]


def check_chain(
    expression: str,
    meaning: Meaning,
    shapes: list[tuple[int, ...]],
    low: float = -4.0,
    high: float = 4.0,
    rtol: float = 1e-6,
) -> list[Program]:
    """The expression over contiguous operands of these shapes against its meaning in float64."""
    random = rng()
    values = [random.uniform(low, high, shape).astype(np.float32) for shape in shapes]
    expected = meaning(*(torch.from_numpy(value).double() for value in values))

    def build(b: ProgramBuilder) -> None:
        inputs = tuple(b.input(f"x{index}", shape) for index, shape in enumerate(shapes))
        y = b.tensor("y", tuple(expected.shape))
        emit_elementwise(Elementwise("chain", inputs, y, expression), b)
        b.output("y", y)

    return check(build, values, [expected], rtol=rtol)


@pytest.mark.parametrize(
    "shapes",
    [
        [(2, 3, 5, 7), (2, 3, 5, 7)],
        [(2, 17, 7, 7), (17, 1, 1)],
        [(2, 17, 7, 7), (1, 17, 1, 1)],
        [(2, 17, 7, 13), (2, 17, 1, 1)],
        [(2, 3, 5, 70), (70,)],
        [(2, 3, 5, 1), (1, 1, 1, 13)],
        [(3, 1, 5, 1), (4, 1, 7)],
        [(1,), (1,)],
        [(40000,), (1,)],
        [(2, 3, 2, 2, 3), (3, 1, 2, 1)],
    ],
    ids=str,
)
def test_broadcasting(shapes: list[tuple[int, ...]]) -> None:
    check_chain("relu(add(x0,mul(x1,0.5)))", lambda a, b: F.relu(a + b * 0.5), shapes)


@pytest.mark.parametrize(
    ("expression", "meaning", "low", "high"),
    [
        ("sub(mul(x0,x1),div(x0,x1))", lambda a, b: a * b - a / b, 0.5, 4.0),
        ("max(min(x0,x1),neg(x0))", lambda a, b: torch.maximum(torch.minimum(a, b), -a), -4.0, 4.0),
        ("abs(sub(x0,x1))", lambda a, b: (a - b).abs(), -4.0, 4.0),
        ("add(sqrt(x0),mul(rsqrt(x0),reciprocal(x1)))", lambda a, b: a.sqrt() + a.rsqrt() * b.reciprocal(), 0.1, 9.0),
        ("mul(exp(x0),log(abs(x1)))", lambda a, b: a.exp() * b.abs().log(), -4.0, 4.0),
        ("add(pow(x0,2),pow(x1,-3))", lambda a, b: a**2 + b**-3, -4.0, -0.5),
        ("add(pow(x0,2.5),pow(x1,-0.5))", lambda a, b: a**2.5 + b**-0.5, 0.1, 4.0),
        ("add(pow(x0,0.3),pow(x1,0))", lambda a, b: a**0.3 + b**0, 0.1, 40.0),
        ("clip(mul(x0,hardsigmoid(x1)),-1,2)", lambda a, b: (a * F.hardsigmoid(b)).clamp(-1, 2), -5.0, 5.0),
        ("mul(x0,sigmoid(add(x0,x1)))", lambda a, b: a * torch.sigmoid(a + b), -5.0, 5.0),
        ("add(gelu(x0),leaky_relu(tanh(x1),0.1))", lambda a, b: F.gelu(a) + F.leaky_relu(b.tanh(), 0.1), -5.0, 5.0),
        ("div(hardswish(x0),add(1,exp(neg(x1))))", lambda a, b: F.hardswish(a) / (1 + (-b).exp()), -5.0, 5.0),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_functions(expression: str, meaning: Meaning, low: float, high: float) -> None:
    check_chain(expression, meaning, [(3, 47), (3, 47)], low, high, rtol=3e-6)


def test_strided_operands_and_result() -> None:
    """Rows of an image inside larger planes, a channel vector whose elements lie a plane apart, and a result that is a
    slice of a concat."""
    random = rng()
    x, wide = random.standard_normal((2, 5, 3, 7), np.float32), random.standard_normal((2, 5, 1, 1), np.float32)

    def build(b: ProgramBuilder) -> None:
        from pcc.codegen.kernels.copy import emit_copy, emit_fill
        from pcc.codegen.layers import Copy, Fill

        image, scale = padded_view(b, "image", (2, 5, 3, 7)), padded_view(b, "scale", (2, 5, 1, 1))
        emit_copy(Copy("a", b.input("x", x.shape), image), b)
        emit_copy(Copy("b", b.input("wide", wide.shape), scale), b)
        y = b.tensor("y", (2, 9, 3, 7))
        emit_fill(Fill("fill", y, 7.0), b)
        part = type(y)(y.buffer, (2, 5, 3, 7), y.strides, 2 * 21)
        squares = padded_view(b, "squares", (2, 5, 1, 1))
        emit_elementwise(Elementwise("square", (scale,), squares, "mul(x0,x0)"), b)
        emit_elementwise(Elementwise("chain", (image, squares), part, "mul(x0,x1)"), b)
        b.output("y", y)

    expected = np.full((2, 9, 3, 7), 7.0)
    expected[:, 2:7] = x.astype(np.float64) * wide**2
    (program, *_) = check(build, [x, wide], [torch.from_numpy(expected)], rtol=1e-6)
    assert [call.kernel.access for call in program.calls if isinstance(call.kernel, Map)] == ["g", "vs"]


def test_access_is_as_wide_as_the_operands_allow() -> None:
    def access(*shapes: tuple[int, ...]) -> str:
        (program, *_) = check_chain("add(x0,x1)", torch.add, list(shapes))
        assert isinstance(program.calls[0].kernel, Map)
        return program.calls[0].kernel.access

    assert access((2, 3, 4, 4), (2, 3, 4, 4)) == "vv"
    assert access((2, 3, 4, 4), (3, 1, 1)) == "vs"
    assert access((4, 5), (1,)) == "vs"


def test_maximum_keeps_nan_from_either_side() -> None:
    a = np.array([np.nan, 1.0, 2.0] * 9, np.float32)
    b_values = np.array([1.0, np.nan, 3.0] * 9, np.float32)
    from pcc.codegen.native import run_native

    from .support import X86_TARGETS

    for target in X86_TARGETS:
        b = ProgramBuilder("test", isa_named(target.isa))
        y = b.tensor("y", (27,))
        emit_elementwise(Elementwise("m", (b.input("a", (27,)), b.input("b", (27,))), y, "max(x0,x1)"), b)
        b.output("y", y)
        (got,) = run_native(b.build(), [a, b_values], target)
        np.testing.assert_array_equal(got, np.array([np.nan, np.nan, 3.0] * 9))


def test_long_chains_stay_small() -> None:
    """Code grows with the length of a chain, not with its depth: TVM must not copy what is bound into its uses."""
    target = ALL_TARGETS[0]
    once, thrice = (
        len(assembly(Map(text, "v"), target).splitlines())
        for text in ("pow(x0,0.3)", "pow(tanh(pow(exp(pow(x0,0.3)),0.7)),0.2)")
    )
    assert thrice < 6 * once


def test_nan_stays_in_every_function() -> None:
    from pcc.codegen.native import run_native

    from .support import X86_TARGETS

    chains = [
        f"{name}(x0)" for name in ("neg", "abs", "exp", "log", "sqrt", "rsqrt", "reciprocal", "relu", "tanh", "gelu")
    ]
    chains += ["pow(x0,0.3)", "pow(x0,2)", "min(x0,1)", "max(1,x0)", "clip(x0,-1,1)"]
    for target in X86_TARGETS:
        b = ProgramBuilder("test", isa_named(target.isa))
        x = b.input("x", (19,))
        for text in chains:
            y = b.tensor(text, (19,))
            emit_elementwise(Elementwise("f", (x,), y, text), b)
            b.output(text, y)
        for text, got in zip(chains, run_native(b.build(), [np.full(19, np.nan, np.float32)], target), strict=True):
            assert np.isnan(got).all(), text


def test_names_are_symbols_and_differ_with_the_expression() -> None:
    kernels = [
        Map("relu(add(x0,x1))", "vv"),
        Map("relu(add(x0,x1))", "vs"),
        Map("relu(add(x1,x0))", "vv"),
        Map("add(x0,0.5)", "v"),
        Map("add(x0,5)", "v"),
    ]
    assert len({kernel.name for kernel in kernels}) == 5
    assert all(kernel.name.isidentifier() for kernel in kernels)
    assert kernels[0].name.startswith("pcc_map_relu_add_")


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
def test_code_is_vectors_without_calls(target: Target) -> None:
    add = assembly(Map("relu(add(x0,x1))", "vv"), target)
    maximum = {"avx512": "vmaxps", "avx2": "vmaxps", "neon": "fmax\tv"}[target.isa]
    assert maximum in add
    assert external_calls(add) == set()
    gelu = assembly(Map("gelu(mul(x0,pow(x1,0.3)))", "vs"), target)
    fused = {"avx512": "%zmm", "avx2": "%ymm", "neon": "v.4s"}[target.isa]
    assert sum(("vfmadd" in line and fused in line) or "fmla\tv" in line for line in gelu.splitlines()) > 10
    assert external_calls(gelu) == set()
