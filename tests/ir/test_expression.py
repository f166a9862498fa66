"""The expression language: text and trees are the same thing, and both mean what PyTorch means."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from pcc.errors import PccError
from pcc.ir.activation import Activation
from pcc.ir.expression import (
    Call,
    Expr,
    Literal,
    Operand,
    apply,
    as_activation,
    count_calls,
    evaluate,
    operand_indices,
    parse,
    substitute,
)

_BINARY = ("add", "sub", "mul", "div", "max", "min")
_UNARY = ("neg", "abs", "exp", "relu", "hardswish", "sigmoid", "silu", "tanh", "gelu", "hardsigmoid")
_numbers = st.floats(allow_nan=False, allow_infinity=False, width=32).map(Literal)


def _trees() -> st.SearchStrategy[Expr]:
    return st.recursive(
        st.integers(0, 3).map(Operand) | _numbers,
        lambda inner: (
            st.builds(lambda f, a, b: Call(f, (a, b)), st.sampled_from(_BINARY), inner, inner)
            | st.builds(lambda f, a: Call(f, (a,)), st.sampled_from(_UNARY), inner)
            | st.builds(lambda a, e: Call("pow", (a, e)), inner, _numbers)
            | st.builds(lambda a, lo, hi: Call("clip", (a, lo, hi)), inner, _numbers, _numbers)
        ),
        max_leaves=8,
    )


@given(_trees())
def test_text_and_tree_are_inverse(tree: Expr) -> None:
    assert parse(str(tree)) == tree


def test_spaces_and_signs_are_read() -> None:
    assert parse(" add( x0 , mul(x1,-.5e1) ) ") == Call("add", (Operand(0), Call("mul", (Operand(1), Literal(-5.0)))))
    assert str(parse("clip(x0, 0.0, 6)")) == "clip(x0,0,6)"


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("relu(add(x0,mul(x1,0.5)))", lambda a, b: F.relu(a + b * 0.5)),
        ("sub(div(x0,x1),3)", lambda a, b: a / b - 3),
        ("max(x0,min(x1,0.25))", lambda a, b: torch.maximum(a, b.clamp(max=0.25))),
        ("pow(abs(x0),1.5)", lambda a, b: a.abs() ** 1.5),
        ("rsqrt(exp(x1))", lambda a, b: b.exp().rsqrt()),
        ("log(reciprocal(sqrt(abs(x0))))", lambda a, b: a.abs().sqrt().reciprocal().log()),
        ("leaky_relu(neg(x0),0.1)", lambda a, b: F.leaky_relu(-a, 0.1)),
        ("clip(x0,-0.5,0.5)", lambda a, b: a.clamp(-0.5, 0.5)),
    ],
)
def test_evaluates_as_pytorch(text: str, meaning) -> None:
    a, b = torch.randn(2, 3, 4, 5), torch.randn(3, 1, 5)
    torch.testing.assert_close(evaluate(parse(text), [a, b]), meaning(a, b).expand(2, 3, 4, 5))


def test_result_is_a_new_contiguous_tensor() -> None:
    x = torch.randn(2, 3, 4).transpose(1, 2)
    result = evaluate(parse("x0"), [x])
    assert result.is_contiguous()
    assert result.data_ptr() != x.data_ptr()


def test_substitute_composes_chains() -> None:
    outer, inner = parse("relu(add(x0,x1))"), parse("mul(x0,x2)")
    composed = substitute(outer, {1: inner, 0: Operand(3)})
    assert str(composed) == "relu(add(x3,mul(x0,x2)))"
    assert operand_indices(composed) == (0, 2, 3)
    assert count_calls(composed) == 3


def test_activations_are_recognised_at_the_top_only() -> None:
    assert as_activation(parse("clip(add(x0,1),0,6)")) == (Activation("clip", (0.0, 6.0)), parse("add(x0,1)"))
    assert as_activation(parse("add(relu(x0),1)")) is None
    assert as_activation(parse("pow(x0,2)")) is None
    assert as_activation(Operand(0)) is None
    assert apply(Activation("leaky_relu", (0.2,)), Operand(1)) == parse("leaky_relu(x1,0.2)")
    assert apply(Activation(), Operand(1)) == Operand(1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sine(x0)", "unknown function 'sine'"),
        ("none(x0)", "unknown function 'none'"),
        ("add(x0", "ends too early"),
        ("add(x0,)", r"unexpected '\)'"),
        ("add(x0 x1)", "expected ',' or"),
        ("relu(x0))", "after 'relu"),
        ("clip(x0,x1,6)", "must be numbers"),
        ("add(x0)", "takes 2 arguments, not 1"),
        ("x0 # x1", "cannot read '# x1'"),
        ("", "ends too early"),
        ("mul(x0,1e39)", "the number 1e\\+39 is not one of fp32"),
        ("clip(x0,-1e39,6)", "not one of fp32"),
    ],
)
def test_nonsense_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(PccError, match=words) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_operand_that_is_not_there() -> None:
    with pytest.raises(PccError, match="operand x2 of 1"):
        evaluate(parse("add(x0,x2)"), [torch.ones(1)])
