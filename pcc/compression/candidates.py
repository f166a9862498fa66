"""Which structures and rates a layer may take: those that the kernels of `pcc.codegen` gain from."""

from collections.abc import Iterable

import numpy as np

from pcc.sparsity.kernels import Kernels

PATTERNS = 8
"""Mined from all 3x3 convolutions together, so that layers share kernels."""
RATES = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
SHARES = (1, 2, 4)
"""Filters that keep the same connections: what they lose in freedom they gain in speed."""

Patterns = tuple[tuple[int, ...], ...]
"""Positions of the taps that each pattern keeps."""


def mined_patterns(weights: Iterable[np.ndarray]) -> Patterns | None:
    """The patterns of a network with these weights; None where it has no 3x3 connections."""
    three = [weight for weight in weights if weight.shape[2:] == (3, 3) and weight.any()]
    if not three:
        return None
    settled = Kernels(PATTERNS).settle(three).patterns
    assert isinstance(settled, tuple)
    return settled


def candidates(weight: np.ndarray, groups: int, patterns: Patterns | None) -> list[Kernels]:
    """What a layer with this weight, (O, I/groups, kh, kw) or (O, I), may take beside staying dense."""
    found = [Kernels(None, rate, share=share) for share in SHARES for rate in RATES]
    if weight.shape[2:] == (3, 3) and patterns:
        found += [Kernels(patterns, rate, share=share) for share in SHARES for rate in (1.0, *RATES)]
    connections = weight.shape[0] * weight.shape[1]
    return [each for each in found if each.rate * each.share <= connections and each.fits(weight, groups)]
