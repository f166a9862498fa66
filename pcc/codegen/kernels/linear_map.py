"""Straight-line code for a matrix of constants times vectors.

Transforms of Winograd's kind have points in pairs p and -p, whose rows (of the input's matrix) or columns (of the
output's) differ in the signs of every second element only. The two share a sum over even places and one over odd
places.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

Matrix = Sequence[Sequence[Fraction]]
Expr = Any


class Arithmetic(Protocol):
    """What a builder of kernels has that this code is written with."""

    @property
    def lanes(self) -> int: ...

    def let(self, value: Expr) -> Expr: ...

    def splat(self, value: Expr, lanes: int) -> Expr: ...


def apply(k: Arithmetic, matrix: Matrix, values: Sequence[Expr], lanes: int | None = None) -> list[Expr]:
    """The products of the rows of a matrix and bound vectors of so many lanes (those of a register if None), bound."""
    lanes = lanes or k.lanes
    matrix, values = _columns_joined(k, [list(row) for row in matrix], list(values))
    results: dict[int, Expr] = {}
    for place, row in enumerate(matrix):
        if place in results:
            continue
        twin = next((other for other in range(place + 1, len(matrix)) if matrix[other] == _alternating(row)), None)
        if twin is None:
            results[place] = _sum(k, row, values, lanes)
            continue
        even, odd = ([c if column % 2 == parity else Fraction(0) for column, c in enumerate(row)] for parity in (0, 1))
        scale = next(c for c in reversed(odd) if c)
        total, other = _sum(k, even, values, lanes), _sum(k, [c / scale for c in odd], values, lanes)
        results[place], results[twin] = _plus(k, total, scale, other, lanes), _plus(k, total, -scale, other, lanes)
    return [results[place] for place in range(len(matrix))]


def multiply_adds(matrix: Matrix) -> int:
    """How many instructions `apply` takes."""
    counter = _Counter()
    apply(counter, matrix, [0] * len(matrix[0]))
    return counter.count


@dataclass
class _Counter:
    """Stands for a builder, and counts what is computed."""

    lanes: int = 1
    count: int = 0

    def let(self, value: float) -> float:
        self.count += 1
        return value

    def splat(self, value: float, lanes: int) -> float:
        return value * lanes


def _alternating(row: Sequence[Fraction]) -> list[Fraction]:
    return [-c if column % 2 else c for column, c in enumerate(row)]


def _columns_joined(
    k: Arithmetic, matrix: list[list[Fraction]], values: list[Expr]
) -> tuple[list[list[Fraction]], list[Expr]]:
    """Two columns that differ in the signs of odd rows become one of even rows for the sum of their values, and one of
    odd rows for the difference."""
    columns = [list(column) for column in zip(*matrix, strict=True)]
    for first, column in enumerate(columns):
        for second in range(first + 1, len(columns)):
            if columns[second] == _alternating(column):
                a, b = values[first], values[second]
                values[first], values[second] = k.let(a + b), k.let(a - b)
                columns[first] = [c if row % 2 == 0 else Fraction(0) for row, c in enumerate(column)]
                columns[second] = [c if row % 2 else Fraction(0) for row, c in enumerate(column)]
                break
    return [list(row) for row in zip(*columns, strict=True)], values


def _sum(k: Arithmetic, row: Sequence[Fraction], values: Sequence[Expr], lanes: int) -> Expr:
    """The sum of products of a row, from its term of factor 1 on where there is one."""
    terms = sorted(((c, value) for c, value in zip(row, values, strict=True) if c), key=lambda term: term[0] != 1)
    (factor, total), *others = terms
    if factor != 1:
        total = k.let(k.splat(float(factor), lanes) * total)
    for factor, value in others:
        total = _plus(k, total, factor, value, lanes)
    return total


def _plus(k: Arithmetic, total: Expr, factor: Fraction, value: Expr, lanes: int) -> Expr:
    if abs(factor) == 1:
        return k.let(total + value if factor == 1 else total - value)
    return k.let(total + k.splat(float(factor), lanes) * value)
