"""Lists of the same lengths in all groups of filters.

A 1x1 kernel goes through a group's channels list by list (`pcc.codegen.kernels.shared_tables.SharedTables`). Where the
lengths differ from group to group, a processor does not foresee where a list ends, and what follows starts late: 20
cycles a list, a third of the time of many layers. So each set of filters gets a list of one length. What a group has
more of it is listed with one filter more, which has a zero for it, and what it has less is filled up with zeros. Only
the list of all filters takes what comes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FILLED = 0.2
"""Of the lists of a set are shorter than its length and are filled up: an entry more costs more than a filter more for
an entry, two to four times as much."""


@dataclass(frozen=True)
class Move:
    """Of each row's list of the set ``source``, so many entries go to that of the set ``target``."""

    source: int
    target: int
    entries: np.ndarray
    """int (R,)."""


@dataclass(frozen=True)
class EvenLists:
    """What makes lists even."""

    counts: np.ndarray
    """int (R, 2^size): entries of each set after all, in each row (a group on a block of channels). Of the empty set as
    before."""
    moves: Sequence[Move]
    """In order: what one brings, a later one may take further."""
    filled: np.ndarray
    """int (R, 2^size): of the entries, those that are zeros only."""


def even_lists(counts: np.ndarray) -> EvenLists:
    """From the entries (R, 2^size) of each set of filters (a bit each) in each row."""
    counts, filled, moves = counts.copy(), np.zeros_like(counts), list[Move]()
    size = counts.shape[1].bit_length() - 1
    for members in sorted(range(1, counts.shape[1] - 1), key=int.bit_count):
        length = np.quantile(counts[:, members], FILLED, method="lower")
        filled[:, members] = np.maximum(length - counts[:, members], 0)
        left = np.maximum(counts[:, members] - length, 0)
        counts[:, members] = length
        larger = [members | 1 << filter for filter in range(size) if not members >> filter & 1]
        usual = [np.ceil(counts[:, other].mean() + left.mean() / len(larger)) for other in larger]
        for other, most in zip(larger, usual, strict=True):  # first where lists are short
            room = left if other == larger[-1] else np.maximum(most.astype(counts.dtype) - counts[:, other], 0)
            taken = np.minimum(left, room)
            counts[:, other] += taken
            left = left - taken
            moves.append(Move(members, other, taken))
    return EvenLists(counts, moves, filled)
