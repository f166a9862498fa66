"""Finds the structure of a weight, whichever tool pruned it: zeros from coarse to fine, then few values.

1. Filters, then channels, that are all zero: what is left is a smaller dense weight.
2. In what is left, the first of columns, blocks, patterns and connections, windows, N:M and single weights that
   explains the zeros: a structure explains
   them if hardly more weights than those that are not zero have a place in it. The last one always does.
3. In what is left of that, the values, if they take few bits.

So a weight has one structure, a composition (`pcc.sparsity.compose`) where there is more than one part.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from pcc.errors import PccError
from pcc.sparsity import codes, pattern
from pcc.sparsity.centroids import Centroids
from pcc.sparsity.columns import Column
from pcc.sparsity.compose import parts_of
from pcc.sparsity.filters import Channel, Filter
from pcc.sparsity.kernels import Kernels
from pcc.sparsity.levels import Binary, PowerOfTwo, Ternary, UniformLevels
from pcc.sparsity.n_of_m import NofM
from pcc.sparsity.slices import Slices
from pcc.sparsity.structure import Structure
from pcc.sparsity.structures import compose
from pcc.sparsity.tetris import Tetris
from pcc.sparsity.unstructured import Unstructured
from pcc.sparsity.values import distinct
from pcc.sparsity.window import Window

_SLACK = 1 / 64
"""A structure may have places for this part more weights than are not zero: a few are zero by accident."""


def detect(weight: np.ndarray, groups: int = 1) -> Structure | str:
    """The structure of a weight (O, I/groups, kh, kw) or (O, I), or why it has none."""
    if not weight.any():
        return "every weight is zero"
    parts: list[Structure] = []
    left, left_groups = weight, groups
    if not weight.all():
        for kind in (Filter, Channel):
            found = kind.detect(left, left_groups)
            if isinstance(found, Slices):
                parts.append(found)
                left, left_groups = found.thin(
                    left, found.choose(np.square(left, dtype=np.float64), left_groups), left_groups
                )
        if zeros := _fine(left, left_groups):
            parts.append(zeros)
    if (values := _values(left)) and (both := _with_values(parts, values)):
        parts = both
    return compose(parts) if parts else "no weight is zero and hardly any value is there twice"


def share_patterns(found: Sequence[Structure]) -> list[Structure]:
    """The structures of a network's layers with one set of patterns for all that have some of the same size, where that
    is a few."""
    of_size: dict[tuple[tuple[int, int], int], set[tuple[int, ...]]] = {}
    for kernels in (part for structure in found for part in parts_of(structure)):
        if isinstance(kernels, Kernels) and isinstance(kernels.patterns, tuple):
            of_size.setdefault((kernels.kernel, len(kernels.patterns[0])), set()).update(kernels.patterns)

    def shared(part: Structure) -> Structure:
        if isinstance(part, Kernels) and isinstance(part.patterns, tuple):
            together = of_size[part.kernel, len(part.patterns[0])]
            return replace(part, patterns=tuple(sorted(together))) if len(together) <= pattern.MOST_PATTERNS else part
        return part

    return [compose([shared(part) for part in parts_of(structure)]) for structure in found]


def _fine(weight: np.ndarray, groups: int) -> Structure | None:
    """The coarsest structure that explains the zeros which no filter or channel does; None where there are hardly
    any."""
    kept = int(np.count_nonzero(weight))
    if weight.size <= kept * (1 + _SLACK):
        return None
    for detection, places in _FINE:
        found = detection(weight, groups)
        if isinstance(found, Structure) and places(found, weight) <= kept * (1 + _SLACK):
            return found
    return None


def _blocks(weight: np.ndarray, groups: int) -> Structure | str:
    found = Tetris.detect(weight, groups)
    return (
        "blocks of one filter or channel are connections"
        if isinstance(found, Tetris) and min(found.block) == 1
        else found
    )


def _connections(weight: np.ndarray, groups: int) -> Structure | str:
    found = Kernels.detect(weight, groups)
    single = weight[0, 0].size == 1 and isinstance(found, Kernels) and found.share == 1
    return "connections of one weight are single weights" if single else found


def _balanced(weight: np.ndarray, groups: int) -> Structure | str:
    found = Kernels.detect(weight, groups)
    return (
        "filters keep different numbers of connections"
        if isinstance(found, Kernels) and found.scope == "layer"
        else found
    )


def _places_of_kernels(found: Kernels, weight: np.ndarray) -> float:
    return found.taps(weight).shape[1] * weight.shape[0] * weight.shape[1] / found.rate


_Detection = Callable[[np.ndarray, int], Structure | str]

_FINE: tuple[tuple[_Detection, Callable[..., float]], ...] = (
    (Column.detect, lambda found, weight: weight.size / found.rate),
    (_blocks, lambda found, weight: weight.size / found.rate),
    (_connections, _places_of_kernels),
    (Window.detect, lambda found, weight: weight.size / found.rate / found.kernels),
    (NofM.detect, lambda found, weight: weight.size * found.n / found.m),
    (_balanced, _places_of_kernels),
    (Unstructured.detect, lambda found, weight: weight.size / found.rate),
)
"""Structures of zeros inside a thin weight, from coarse to fine, with how many weights of it have a place in them."""


def _values(weight: np.ndarray) -> Structure | None:
    """The values of the weights that are not zero, in the fewest bits; None where they take about as many as fp32."""
    kept = int(np.count_nonzero(weight))
    for kind in (Binary, PowerOfTwo, UniformLevels, Centroids):
        found = kind.detect(weight)
        if not isinstance(found, str):
            values = distinct(weight, kept)
            assert values is not None
            bits = codes.bits_for(len(values))
            return found if 32 * len(values) + bits * kept <= 16 * kept else None
    return None


def _with_values(parts: list[Structure], values: Structure) -> list[Structure] | None:
    """The parts with values; weights of one magnitude and zeros anywhere are ternary. None where the two do not go
    together."""
    if isinstance(values, Binary):
        values = replace(values, keep_zeros=bool(parts))
        if values.per == "layer" and [type(part) for part in parts] == [Unstructured]:
            return [Ternary()]
    try:
        compose([*parts, values])
    except PccError:
        return None
    return [*parts, values]
