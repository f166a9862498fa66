"""The text of ``pcc::elementwise``: ``relu(add(x0,mul(x1,0.5)))``.

Operands are ``x0``, ``x1``, ...; numbers are literals (``inf``, too); everything else is a function call:

* arithmetic: ``add sub mul div fmod max min pow`` of two expressions, ``neg abs exp exp2 expm1 log log1p sqrt rsqrt
  reciprocal erf sin cos atan`` of one;
* whole numbers: ``floor ceil trunc round``, halves to the even one;
* activations with a parameter: ``prelu swish`` of two expressions (``max`` and ``min`` are such, too);
* truth, which is 1 or 0: ``lt le gt ge eq ne`` of two expressions; ``where(c,a,b)`` is ``a`` where ``c`` is not 0;
* each other activation of `pcc.ir.activation`, its arguments literals: ``relu(x0)``, ``clip(x0,0,6)``,
  ``leaky_relu(x0,0.1)``.

Operands broadcast by NumPy's rules. `parse` and ``str`` are inverse; chains are composed with `substitute`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf

import torch

from pcc.errors import PccError
from pcc.ir.activation import LARGEST, PARAMETRIC, Activation, activation_arity, number


@dataclass(frozen=True)
class Operand:
    """The ``index``-th tensor of the node."""

    index: int

    def __str__(self) -> str:
        return f"x{self.index}"


@dataclass(frozen=True)
class Literal:
    """A number of fp32's range, or an infinity."""

    value: float

    def __post_init__(self) -> None:
        if not abs(self.value) <= LARGEST and abs(self.value) != inf:
            raise PccError(f"expression: the number {self.value} is not one of fp32")

    def __str__(self) -> str:
        return number(self.value)


@dataclass(frozen=True)
class Call:
    """A function of the language applied to expressions."""

    function: str
    args: "tuple[Expr, ...]"

    def __post_init__(self) -> None:
        arity, literals = _signature(self.function)
        if len(self.args) != arity:
            raise PccError(f"expression: {self.function} takes {arity} arguments, not {len(self.args)}")
        if not all(isinstance(arg, Literal) for arg in self.args[arity - literals :]):
            raise PccError(f"expression: the last {literals} arguments of {self.function} must be numbers")

    def __str__(self) -> str:
        return f"{self.function}({','.join(map(str, self.args))})"


Expr = Call | Operand | Literal


def walk(expr: Expr) -> Iterator[Expr]:
    """The expression and all that it is made of."""
    yield expr
    for arg in expr.args if isinstance(expr, Call) else ():
        yield from walk(arg)


def numbers(parts: Iterable[Expr]) -> list[float]:
    """The numbers of those that are literals."""
    return [part.value for part in parts if isinstance(part, Literal)]


def _truth(compare: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A comparison whose result is 1 or 0, of the operands' type."""
    return lambda a, b: compare(a, b).to(a.dtype)


COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
_ARITHMETIC: dict[str, tuple[int, Callable[..., torch.Tensor]]] = {
    "add": (2, torch.add),
    "sub": (2, torch.sub),
    "mul": (2, torch.mul),
    "div": (2, torch.div),
    "fmod": (2, torch.fmod),
    **{name: (2, meaning) for name, meaning in PARAMETRIC.items()},
    "pow": (2, torch.pow),
    "neg": (1, torch.neg),
    "abs": (1, torch.abs),
    "exp": (1, torch.exp),
    "expm1": (1, torch.expm1),
    "log": (1, torch.log),
    "log1p": (1, torch.log1p),
    "sqrt": (1, torch.sqrt),
    "rsqrt": (1, torch.rsqrt),
    "reciprocal": (1, torch.reciprocal),
    "exp2": (1, torch.exp2),
    "erf": (1, torch.erf),
    "sin": (1, torch.sin),
    "cos": (1, torch.cos),
    "atan": (1, torch.atan),
    "floor": (1, torch.floor),
    "ceil": (1, torch.ceil),
    "trunc": (1, torch.trunc),
    "round": (1, torch.round),
    **{name: (2, _truth(getattr(torch, name))) for name in COMPARISONS},
    "where": (3, lambda c, a, b: torch.where(c != 0, a, b)),
}
"""Name: arity, meaning. All arguments may be expressions."""

_TOKEN = re.compile(
    r"\s*(?:(?P<operand>x\d+)(?!\w)|(?P<number>[-+]?(?:inf(?!\w)|(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?))|(?P<name>[a-z_]\w*)|(?P<mark>[(),]))"
)


def parse(text: str) -> Expr:
    """Reads an expression; `PccError` names the place where the text stops making sense."""
    tokens = _tokens(text)
    expr, end = _parse(text, tokens, 0)
    if end != len(tokens):
        raise PccError(f"expression '{text}': unexpected '{tokens[end][1]}' after '{expr}'")
    return expr


def evaluate(expr: Expr, operands: Sequence[torch.Tensor]) -> torch.Tensor:
    """The value of an expression, in PyTorch; the result is a new tensor of the operands' common shape."""
    shape = torch.broadcast_shapes(*(operand.shape for operand in operands))
    value = value_of(expr, operands)
    return value.expand(shape).clone(memory_format=torch.contiguous_format)


def substitute(expr: Expr, bindings: Mapping[int, Expr]) -> Expr:
    """The expression with operand ``i`` replaced by ``bindings[i]`` (all at once); operands not named stay."""
    match expr:
        case Operand(index):
            return bindings.get(index, expr)
        case Call(function, args):
            return Call(function, tuple(substitute(arg, bindings) for arg in args))
        case Literal():
            return expr


def operand_indices(expr: Expr) -> tuple[int, ...]:
    """The operands an expression reads, ascending, each once."""
    match expr:
        case Operand(index):
            return (index,)
        case Call(_, args):
            return tuple(sorted({index for arg in args for index in operand_indices(arg)}))
        case Literal():
            return ()


def count_calls(expr: Expr) -> int:
    """How many functions are applied for one element."""
    return 1 + sum(map(count_calls, expr.args)) if isinstance(expr, Call) else 0


def is_truth(expr: Expr) -> bool:
    """Whether nothing but 0 and 1 comes out, as the expression shows."""
    if not isinstance(expr, Call):
        return False
    return expr.function in COMPARISONS or (expr.function in ("mul", "max") and all(map(is_truth, expr.args)))


def apply(activation: Activation, expr: Expr) -> Expr:
    """An activation of an expression."""
    return expr if activation.kind == "none" else Call(activation.kind, (expr, *map(Literal, activation.args)))


def as_activation(expr: Expr) -> tuple[Activation, Expr] | None:
    """What `apply` was called with, when the outermost function is an activation; else None."""
    if not isinstance(expr, Call) or expr.function in _ARITHMETIC:
        return None
    return Activation(expr.function, tuple(numbers(expr.args[1:]))), expr.args[0]


def _signature(function: str) -> tuple[int, int]:
    """(arity, how many of the last arguments are literals)."""
    if function in _ARITHMETIC:
        return _ARITHMETIC[function][0], 0
    literals = activation_arity(function)
    if literals is None or function == "none":
        raise PccError(f"expression: unknown function '{function}'")
    return literals + 1, literals


def value_of(expr: Expr, operands: Sequence[torch.Tensor]) -> torch.Tensor:
    """The value of an expression in the shape that its operands give it; what is not read does not count."""
    match expr:
        case Operand(index):
            if index >= len(operands):
                raise PccError(f"expression: operand x{index} of {len(operands)} operands")
            return operands[index]
        case Literal(value):
            return torch.full((), value, dtype=operands[0].dtype, device=operands[0].device)
        case Call(function, args) if function in _ARITHMETIC:
            return _ARITHMETIC[function][1](*(value_of(arg, operands) for arg in args))
        case Call():
            activated = as_activation(expr)
            assert activated is not None  # Call's constructor lets nothing else through
            return activated[0](value_of(activated[1], operands))


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, position = [], 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise PccError(f"expression '{text}': cannot read '{text[position:].strip()}'")
        tokens.append((match.lastgroup, match[match.lastgroup]))
        position = match.end()
    return tokens


def _parse(text: str, tokens: list[tuple[str, str]], at: int) -> tuple[Expr, int]:
    """The expression that starts at token ``at``, and the token after it."""

    def token(index: int) -> tuple[str, str]:
        if index >= len(tokens):
            raise PccError(f"expression '{text}' ends too early")
        return tokens[index]

    kind, word = token(at)
    if kind == "operand":
        return Operand(int(word[1:])), at + 1
    if kind == "number":
        return Literal(float(word)), at + 1
    if kind == "mark" or token(at + 1)[1] != "(":
        raise PccError(f"expression '{text}': unexpected '{word}'")
    args: list[Expr] = []
    at += 1
    while token(at)[1] != ")":
        if args and tokens[at][1] != ",":
            raise PccError(f"expression '{text}': expected ',' or ')' before '{tokens[at][1]}'")
        arg, at = _parse(text, tokens, at + 1)
        args.append(arg)
    return Call(word, tuple(args)), at + 1
