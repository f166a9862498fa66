"""A network that grows by a step at a time, each run as it is drawn."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

LARGEST, MOST_ELEMENTS = 1e4, 4096
"""Of values, and of a tensor: steps beyond are not taken."""

GAP = 1e-3
"""How far a number keeps from where a step would decide otherwise."""


class Unfit(Exception):  # no error: the step is drawn again
    """A step that the values so far do not allow."""


class Network(nn.Module):
    """The steps as a module: each a function of earlier values."""

    def __init__(self, steps: Sequence[tuple[Callable[..., Any], Sequence[int]]], results: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(function for function, _ in steps if isinstance(function, nn.Module))
        self.steps, self.results = tuple(steps), tuple(results)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        values = list(inputs)
        for function, operands in self.steps:
            value = function(*(values[operand] for operand in operands))
            values.extend(value if isinstance(value, tuple | list) else (value,))
        return tuple(values[result] for result in self.results)


class Builder:
    """A network being drawn."""

    def __init__(self, random: Random, dead: float = 0.0) -> None:
        """``dead``: the part of the filters, neurons and scales of layers that are zero, and of biases."""
        self.random, self.dead = random, dead
        self.generator = torch.Generator().manual_seed(random.getrandbits(32))
        self.inputs: list[Tensor] = []
        self.values: list[Tensor] = []
        self.steps: list[tuple[Callable[..., Any], tuple[int, ...]]] = []
        self.names: list[str] = []

    def input(self, *shape: int) -> None:
        self.inputs.append(self.noise(*shape))
        self.values.append(self.inputs[-1])

    # ---- draws ----

    def noise(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def size(self, most: int) -> int:
        return self.random.randint(1, max(1, most))

    def flag(self) -> bool:
        return self.random.random() < 0.5

    def pick(self, suits: Callable[[Tensor], bool]) -> int:
        """One of the values that suit, a recent one more often."""
        fit = [place for place, value in enumerate(self.values) if suits(value)]
        if not fit:
            raise Unfit
        return fit[max(self.random.randrange(len(fit)), self.random.randrange(len(fit)))]

    def real(self, *ranks: int) -> int:
        """A value of real numbers, of one of these ranks if there are any."""
        return self.pick(lambda x: x.is_floating_point() and (not ranks or x.dim() in ranks))

    def divisor(self, number: int) -> int:
        return self.random.choice([n for n in range(1, number + 1) if number % n == 0])

    def dim(self, x: Tensor) -> int:
        """A dimension, counted from either end."""
        if not x.dim():
            raise Unfit
        return self.random.randrange(-x.dim(), x.dim())

    def dims(self, x: Tensor) -> tuple[int, ...]:
        """Some dimensions, at least one, each from either end."""
        if not x.dim():
            raise Unfit
        chosen = self.random.sample(range(x.dim()), self.size(x.dim()))
        return tuple(dim - x.dim() if self.flag() else dim for dim in chosen)

    def factors(self, number: int, count: int) -> tuple[int, ...]:
        """Sizes whose product is the number."""
        sizes = []
        for _ in range(count - 1):
            sizes.append(self.divisor(number))
            number //= sizes[-1]
        sizes.append(number)
        self.random.shuffle(sizes)
        return tuple(sizes)

    # ---- steps ----

    def add(self, function: Callable[..., Any], *operands: int) -> list[int]:
        """Runs a step and keeps it with its results; `Unfit` if these are empty, large or no numbers."""
        if isinstance(function, nn.Module):
            function.eval()
            for parameter in (*function.parameters(), *function.buffers()):
                if parameter.is_floating_point():
                    parameter.data = self.noise(*parameter.shape) * 0.5
                    if parameter.dim() and self.dead:
                        parameter.data[torch.rand(len(parameter), generator=self.generator) < self.dead] = 0
            for name, statistics in function.named_buffers():
                if name.endswith("running_var"):
                    statistics.data = statistics.abs() + 0.5
        try:
            with torch.no_grad():
                value = function(*(self.values[operand] for operand in operands))
        except (RuntimeError, ValueError, IndexError, NotImplementedError) as error:
            raise Unfit(f"{error}") from error
        results = list(value) if isinstance(value, tuple | list) else [value]
        for x in results:
            if (
                not x.numel()
                or x.numel() > MOST_ELEMENTS
                or x.dim() > 6
                or not bool((x.double().abs() <= LARGEST).all())
            ):
                raise Unfit
        self.steps.append((function, operands))
        first = len(self.values)
        self.values.extend(results)
        return list(range(first, len(self.values)))

    def network(self) -> Network:
        """What was drawn: the values that nobody reads, and one of the others, are the results."""
        read = {operand for _, operands in self.steps for operand in operands}
        computed = range(len(self.inputs), len(self.values))
        results = [place for place in computed if place not in read] or [computed[-1]]
        return Network(self.steps, [*results, self.random.choice(computed)])


def apart(*differences: Tensor) -> None:
    """`Unfit` if a number, of which the sign decides, is nearly 0."""
    if any(bool((x.double().abs() < GAP).any()) for x in differences):
        raise Unfit


def broadcast(x: Tensor, y: Tensor) -> bool:
    return all(1 in (m, n) or m == n for m, n in zip(x.shape[::-1], y.shape[::-1], strict=False))
