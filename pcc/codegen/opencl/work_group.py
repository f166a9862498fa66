"""Which work-items form a work-group: by the range alone."""

from itertools import product
from math import prod

from pcc.codegen.range import Range, Sizes

GROUP = 64
"""Items of a work-group: a wave of Adreno, four of Mali; all devices take so many."""

_NEIGHBOURS = 4

_POWERS = tuple(1 << power for power in range(GROUP.bit_length()))


def work_groups(items: Sizes, *, whole: bool = True) -> list[Sizes]:
    """Work-groups of `GROUP` items for so many items, those first that leave the fewest items without work, and of
    those the ones near 8 columns. At least four neighbours of a row, where there are so many: they read neighbours.
    ``whole``: groups divide the third dimension, for kernels that do not ask where it ends."""
    found = [
        (x, y, z)
        for x, y in product(_POWERS, _POWERS)
        for z in [GROUP // (x * y) or GROUP]
        if x * y * z == GROUP and not (whole and items[2] % z) and x >= min(items[0], _NEIGHBOURS)
    ]
    return sorted(found, key=lambda group: (idle_share(items, group), abs(group[0] - 8), group))


def idle_share(items: Sizes, group: Sizes) -> float:
    """How many times the items there are, with those that have no work."""
    return prod(Range.covering(items, group).global_size) / prod(items)


def range_over(items: Sizes) -> Range:
    """The range of so many items in the first of `work_groups`."""
    return Range.covering(items, work_groups(items)[0])
