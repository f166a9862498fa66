"""Steps that compute numbers: along dimensions, element by element, whole numbers and truth."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.random_graphs.builder import Builder, apart, broadcast

# ---- along dimensions ----


def reduce(b: Builder) -> None:
    x = b.real()
    dims, keep = b.dims(b.values[x]), b.flag()
    kinds: Sequence[Callable[[Tensor], Tensor]] = [
        lambda x: x.sum(dims, keep),
        lambda x: x.mean(dims, keep),
        lambda x: x.mean(),
        lambda x: x.amax(dims, keep),
        lambda x: x.amin(dims, keep),
        lambda x: x.max(),
        lambda x: torch.logsumexp(x, dims, keep),
        lambda x: torch.linalg.vector_norm(x + 0.1, 2, dims, keep),
        lambda x: x.abs().sum(dims[0], keep),
        lambda x: torch.var(x, dims, correction=0, keepdim=keep),
        lambda x: torch.std(x, dims, keepdim=keep),
        lambda x: torch.tanh(x).prod(dims[0], keep),
    ]
    b.add(b.random.choice(kinds), x)


def along(b: Builder) -> None:
    x = b.real()
    d = b.dim(b.values[x])
    b.add(
        b.random.choice(
            [
                lambda x: x.softmax(d),
                lambda x: F.log_softmax(x, d),
                lambda x: x.cumsum(d),
                lambda x: torch.tanh(x).cumprod(d),
            ]
        ),
        x,
    )


def order(b: Builder) -> None:
    """What asks which of several numbers is larger."""
    x = b.real()
    value = b.values[x]
    d, keep, largest = b.dim(value), b.flag(), b.flag()
    ordered = value.sort(d).values
    apart(ordered.diff(dim=d))
    k = b.size(value.shape[d])
    kinds: Sequence[Callable[[Tensor], Any]] = [
        lambda x: x.argmax(d, keep),
        lambda x: x.argmin(d, keep),
        lambda x: tuple(x.max(d, keep)),
        lambda x: tuple(x.min(d, keep)),
        lambda x: tuple(torch.topk(x, k, d, largest)),
        lambda x: tuple(torch.sort(x, d, descending=largest)),
        lambda x: x.argsort(d, largest),
        lambda x: tuple(x.median(d, keep)),
    ]
    b.add(b.random.choice(kinds), x)


# ---- element by element ----

_UNARY: Sequence[Callable[[Tensor], Tensor]] = [
    *(
        torch.relu,
        torch.sigmoid,
        torch.tanh,
        torch.abs,
        torch.neg,
        torch.erf,
        F.silu,
        F.mish,
        F.hardswish,
        F.hardsigmoid,
        F.relu6,
        F.selu,
        F.softsign,
    ),
    *(F.gelu, F.softplus, F.logsigmoid, F.hardtanh, F.celu, F.tanhshrink),
    lambda x: F.gelu(x, approximate="tanh"),
    lambda x: F.leaky_relu(x, 0.2),
    lambda x: F.elu(x, 0.7),
    lambda x: F.softplus(x, 2.0, 5.0),
    lambda x: (x * 0.3).clamp(-3, 3).exp(),
    lambda x: (x * 0.3).clamp(-3, 3).expm1(),
    lambda x: (x.abs() + 0.1).log(),
    lambda x: x.abs().log1p(),
    lambda x: (x.abs() + 0.1).log2(),
    lambda x: (x.abs() + 0.1).sqrt(),
    lambda x: (x.abs() + 0.1).rsqrt(),
    lambda x: 1 / (x.abs() + 0.5),
    lambda x: (x.abs() + 0.2) ** 0.7,
    lambda x: x**2,
    lambda x: torch.tanh(x) ** 3,
    lambda x: 2 ** x.clamp(-3, 3),
    lambda x: x.clamp(min=-0.5),
    lambda x: x.clamp(max=0.7),
    lambda x: 1 - x,
    lambda x: 0.5 * x + 0.25,
    lambda x: x / 3,
    lambda x: F.glu(torch.cat([x, x], -1), -1),
]


def unary(b: Builder) -> None:
    b.add(b.random.choice(_UNARY), b.real())


def step_function(b: Builder) -> None:
    """Functions with jumps, away from these."""
    x = b.real()
    value = b.values[x] * 1.7
    apart(value, value - value.round(), value - value.floor() - 0.5)
    kinds: Sequence[Callable[[Tensor], Tensor]] = [
        *(torch.floor, torch.ceil, torch.round, torch.trunc, torch.sign, torch.frac),
        *(
            lambda x: x % 1,
            lambda x: torch.fmod(x, 1),
            lambda x: x // 1,
            lambda x: x.to(torch.int64),
            lambda x: x.int(),
        ),
        *(lambda x: F.threshold(x, 0.0, 0.3), lambda x: x > 0, lambda x: x <= 0, lambda x: x.masked_fill(x < 0, 0.25)),
        *(lambda x: torch.where(x > 0, x, x * 0.1), lambda x: (x >= 0).to(x.dtype)),
    ]
    chosen = b.random.choice(kinds)
    b.add(lambda x: chosen(x * 1.7), x)


def binary(b: Builder) -> None:
    """Of two values that broadcast, or of one and a constant of some of its dimensions."""
    x = b.real()
    value = b.values[x]
    kinds: Sequence[Callable[[Tensor, Tensor], Tensor]] = [
        *(torch.add, torch.add, torch.sub, torch.mul, torch.mul, torch.maximum, torch.minimum),
        lambda x, y: x / (y.abs() + 0.5),
        lambda x, y: torch.add(x, y, alpha=0.5),
        lambda x, y: torch.lerp(x, y, 0.3),
        lambda x, y: torch.addcmul(x, x, y, value=0.5),
    ]
    chosen = b.random.choice(kinds)
    if b.random.random() < 0.7:
        b.add(chosen, x, b.pick(lambda y: y.is_floating_point() and broadcast(value, y)))
    else:
        shape = [size if b.flag() else 1 for size in value.shape][b.random.randint(0, value.dim()) :]
        constant = b.noise(*shape)
        b.add(lambda x: chosen(x, constant), x) if b.flag() else b.add(lambda x: chosen(constant, x), x)


def residual(b: Builder) -> None:
    x = b.pick(lambda x: x.is_floating_point() and x.dim() > 2)
    y = b.pick(lambda y: y.shape == b.values[x].shape and y.is_floating_point())
    b.add(
        b.random.choice([torch.add, torch.add, lambda x, y: torch.relu(x + y), lambda x, y: x * torch.sigmoid(y)]), x, y
    )


def gate(b: Builder) -> None:
    """Squeeze and excite."""
    x = b.real(4)
    b.add(lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)), x)


# ---- whole numbers and truth ----


def whole(b: Builder) -> None:
    x = b.pick(lambda x: x.dtype in (torch.int64, torch.int32))
    number = b.size(4)
    kinds: Sequence[Callable[[Tensor], Tensor]] = [
        *(
            lambda x: x + number,
            lambda x: number - x,
            lambda x: x * 2,
            lambda x: x // number,
            lambda x: x % number,
            lambda x: x == number,
        ),
        *(
            lambda x: x.float() / number,
            lambda x: x / number,
            lambda x: x.clamp(0, number),
            lambda x: x.abs(),
            lambda x: x.sum(),
            lambda x: x > 1,
            torch.neg,
        ),
        lambda x: torch.where(x > number, x, number),
    ]
    b.add(b.random.choice(kinds), x)


def truth(b: Builder) -> None:
    x = b.pick(lambda x: x.dtype == torch.bool)
    y = b.pick(lambda y: y.dtype == torch.bool and broadcast(y, b.values[x]))
    z = b.pick(lambda z: z.is_floating_point() and broadcast(z, b.values[x]))
    kinds: Sequence[tuple[Callable[..., Tensor], tuple[int, ...]]] = [
        *(
            (torch.logical_and, (x, y)),
            (torch.logical_or, (x, y)),
            (torch.logical_xor, (x, y)),
            (torch.logical_not, (x,)),
            (lambda x, y: x & ~y, (x, y)),
        ),
        *(
            (lambda x: x.any(-1), (x,)),
            (lambda x: x.all(), (x,)),
            (lambda x: x.float(), (x,)),
            (lambda x: x.sum(), (x,)),
            (lambda x: x.to(torch.int64), (x,)),
        ),
        *(
            (lambda x, z: torch.where(x, z, 0.5), (x, z)),
            (lambda x, z: z * x, (x, z)),
            (lambda x, z: torch.where(x, z, z * 2), (x, z)),
        ),
        (lambda x, z: z.masked_fill(x, -1.0), (x, z)),
    ]
    b.add(*(lambda chosen: (chosen[0], *chosen[1]))(b.random.choice(kinds)))


def compare(b: Builder) -> None:
    x = b.real()
    y = b.pick(lambda y: y.is_floating_point() and broadcast(b.values[x], y))
    apart(b.values[x] - b.values[y])
    b.add(b.random.choice([torch.gt, torch.lt, torch.ge, torch.le]), x, y)


STEPS = [
    *(
        reduce,
        reduce,
        along,
        order,
        unary,
        unary,
        unary,
        step_function,
        binary,
        binary,
        binary,
        residual,
        residual,
        gate,
        whole,
        whole,
        truth,
    ),
    *(truth, compare),
]
