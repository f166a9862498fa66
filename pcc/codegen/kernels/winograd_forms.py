"""Winograd's minimal filtering F(m x m, 3 x 3): its matrices, what it costs in accuracy, and straight-line code for a
matrix of constants.

A tile of m x m outputs is ``A' [(G g G') * (B' d B)] A`` of the (m+2) x (m+2) inputs d it reads, summed over channels
before the outer transform: (m+2)^2 multiplies instead of 9 m^2. The matrices are those of Toom-Cook, exact fractions
from m+1 points and infinity (Winograd, Arithmetic complexity of computations, 1980; Lavin and Gray, Fast algorithms for
convolutional neural networks, 2016).

Larger tiles save more and lose digits. The points decide how many (Barabasz et al., Error analysis and improving the
accuracy of Winograd convolution, 2020): pairs p and -p keep the transforms cheap, and with +-3/4 and +-3/2 the error of
F(4x4) is about that of direct convolution, a third of what the usual +-1 and +-2 give. All constants of the transforms
of data are exact in fp32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import prod

import numpy as np

from pcc.codegen.kernels.linear_map import multiply_adds

WINDOW = 3

Matrix = tuple[tuple[Fraction, ...], ...]


@dataclass(frozen=True)
class Form:
    """F(m x m, 3 x 3) by its points."""

    outputs: int
    """m: rows and columns of a tile of outputs."""
    points: tuple[Fraction, ...]
    """m + 1 of them, all different; infinity is the last one, unsaid."""

    def __str__(self) -> str:
        return f"F({self.outputs}x{self.outputs})"

    @property
    def inputs(self) -> int:
        """m + 2: rows and columns of what a tile reads, and of what is multiplied."""
        return self.outputs + WINDOW - 1

    @cached_property
    def output_matrix(self) -> Matrix:
        """A', (m, m + 2)."""
        return tuple(
            (*(point**row for point in self.points), Fraction(int(row == self.outputs - 1)))
            for row in range(self.outputs)
        )

    @cached_property
    def weight_matrix(self) -> Matrix:
        """G, (m + 2, 3)."""
        rows = [
            tuple(point**power / prod(point - other for other in self._without(point)) for power in range(WINDOW))
            for point in self.points
        ]
        return (*rows, tuple(Fraction(int(power == WINDOW - 1)) for power in range(WINDOW)))

    @cached_property
    def input_matrix(self) -> Matrix:
        """B', (m + 2, m + 2): each row the polynomial that is zero at all other points."""
        return (*((*_polynomial(self._without(point)), Fraction(0)) for point in self.points), _polynomial(self.points))

    @cached_property
    def input_adds(self) -> int:
        """Instructions of the transform of a row of inputs."""
        return multiply_adds(self.input_matrix)

    @cached_property
    def output_adds(self) -> int:
        """Instructions of the transform of a row of products."""
        return multiply_adds(self.output_matrix)

    def _without(self, point: Fraction) -> tuple[Fraction, ...]:
        return tuple(other for other in self.points if other != point)

    def transformed(self, weight: np.ndarray) -> np.ndarray:
        """``G g G'`` of every window of (..., 3, 3), fp64 (..., m + 2, m + 2)."""
        matrix = np.array(self.weight_matrix, np.float64)
        return matrix @ weight.astype(np.float64) @ matrix.T

    def error(self, weight: np.ndarray) -> float:
        """The expected error of an output in fp32, root mean square, to the root mean square of the outputs, for
        weights (O, I, 3, 3).

        Every product of transformed data and weight brings a relative error of some units in the last place,
        independent of the others; the sums over channels and the outer transform add them up. So the error grows with
        the size of what is added to the size of the result: by the matrices, and by these weights. Inputs are taken as
        independent and of one variance.
        """
        a, b, g = (
            np.array(matrix, np.float64) for matrix in (self.output_matrix, self.input_matrix, self.weight_matrix)
        )
        windows = weight.reshape(-1, WINDOW * WINDOW).astype(np.float64)
        moments = windows.T @ windows
        both = np.kron(g, g)
        size = ((both @ moments) * both).sum(1) * np.kron((b * b).sum(1), (b * b).sum(1))
        noise = np.kron((a * a).mean(0), (a * a).mean(0)) @ size
        ulps = np.sqrt(noise / max(float(np.trace(moments)), np.finfo(np.float64).tiny))
        return float(ulps * _ROUNDING * np.sqrt(weight.shape[1] + _TRANSFORMS) * np.finfo(np.float32).eps)


_ROUNDING, _TRANSFORMS = 0.15, 14
"""The error of a sum of n products is about so many units times the root of n, and of n more for the transforms: fitted
to measured errors, which are within 1.5 times of it."""


def _polynomial(roots: Sequence[Fraction]) -> tuple[Fraction, ...]:
    """The coefficients of the product of (x - root), from that of 1 on."""
    coefficients = (Fraction(1),)
    for root in roots:
        coefficients = tuple(
            low - root * high
            for low, high in zip((Fraction(0), *coefficients), (*coefficients, Fraction(0)), strict=True)
        )
    return coefficients


def _points(*pairs: str) -> tuple[Fraction, ...]:
    """Zero and pairs of both signs."""
    return (Fraction(0), *(sign * Fraction(pair) for pair in pairs for sign in (1, -1)))


FORMS: dict[int, Form] = {
    form.outputs: form
    for form in (Form(2, _points("1")), Form(4, _points("3/4", "3/2")), Form(6, _points("1", "2", "1/2")))
}
"""By the size of their tiles."""
