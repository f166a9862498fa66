"""Orders of filters and channels in which few blocks hold what matters: the search of TETRIS (Ji et al., NeurIPS 2018).

Scores (groups, R, C) say what each connection is worth; R filters and C channels of a convolution group are cut into
blocks of ``rows x columns`` *slots*, the last ones of what is left over. An order says which filter sits in which slot.
The search alternates:

1. with orders fixed, the blocks of largest total stay;
2. with these blocks fixed, for each dimension in turn: S_ib is what is lost if slice i sits in block b, and of all
   pairs of slices the one whose swap gains
   most, G_ij = (S_ia + S_jb) - (S_ib + S_ja), is swapped, until no swap gains anything.

Every step lowers the loss, so it ends, in a local optimum: the best orders are not known. The paper computes G for all
pairs of slices; here it is computed for pairs of blocks, with the best slice to leave each block, which finds the same
swap in a fraction of the time.
"""

from dataclasses import dataclass

import numpy as np

from pcc.sparsity.budget import largest
from pcc.sparsity.connectivity import similar_order

_GAIN = 1e-9
"""Swaps that gain a smaller share of the total are rounding."""


@dataclass(frozen=True)
class Orders:
    """Which filter and which channel of its convolution group sits in each slot."""

    rows: np.ndarray
    """int64 (groups, R)."""
    columns: np.ndarray
    """int64 (groups, C)."""

    @staticmethod
    def plain(groups: int, rows: int, columns: int) -> "Orders":
        return Orders(np.tile(np.arange(rows), (groups, 1)), np.tile(np.arange(columns), (groups, 1)))

    def apply(self, scores: np.ndarray) -> np.ndarray:
        """(groups, R, C) by slots."""
        return np.take_along_axis(
            np.take_along_axis(scores, self.rows[:, :, None], axis=1), self.columns[:, None, :], axis=2
        )


def block_sums(ordered: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    """Totals of the blocks of scores in slots: (groups, blocks down, blocks across)."""
    return run_sums(run_sums(ordered, block[0], 1), block[1], 2)


def search(
    scores: np.ndarray, block: tuple[int, int], kept: int, start: Orders, *, rows: bool = True, columns: bool = True
) -> Orders:
    """Orders in which the best ``kept`` blocks lose as little as the search finds; ``rows`` and ``columns`` say which
    orders may move."""
    row_order, column_order = start.rows.copy(), start.columns.copy()
    least = _GAIN * float(np.abs(scores).sum())
    moved = True
    while moved:
        moved = False
        gone = ~largest(block_sums(Orders(row_order, column_order).apply(scores), block), kept)
        for group, (score, pruned) in enumerate(zip(scores, gone.astype(np.float64), strict=True)):
            if rows:
                losses = run_sums(score[:, column_order[group]], block[1], 1) @ pruned.T
                row_order[group], swapped = _swap(losses, row_order[group], block[0], least)
                moved |= swapped
            if columns:
                losses = run_sums(score[row_order[group]], block[0], 0).T @ pruned
                column_order[group], swapped = _swap(losses, column_order[group], block[1], least)
                moved |= swapped
    return Orders(row_order, column_order)


def _swap(losses: np.ndarray, order: np.ndarray, size: int, least: float) -> tuple[np.ndarray, bool]:
    """(the order after all swaps that gain more than ``least``, whether there was one). ``losses`` (n, blocks): slice i
    in block b."""
    blocks = losses.shape[1]
    if blocks == 1:
        return order, False
    slots = np.append(order, np.full(blocks * size - len(order), -1)).reshape(blocks, size)
    gains, leavers, pairs = (
        np.zeros((blocks, blocks)),
        np.empty((blocks, blocks), dtype=np.int64),
        np.empty((blocks, blocks)),
    )

    def rate(block: int) -> None:
        """What is gained when the slice of this block that gains most goes to each other block, its slot, and what
        swaps with this block gain."""
        members = slots[block]
        gained = np.where(members[:, None] >= 0, losses[members, block][:, None] - losses[members], -np.inf)
        leavers[block], gains[block] = gained.argmax(axis=0), gained.max(axis=0)
        pairs[block] = pairs[:, block] = gains[block] + gains[:, block]

    for block in range(blocks):
        rate(block)
    swapped = False
    while True:
        a, b = divmod(int(pairs.argmax()), blocks)
        if not pairs[a, b] > least:
            return slots[slots >= 0], swapped
        first, second = (a, leavers[a, b]), (b, leavers[b, a])
        slots[first], slots[second] = slots[second], slots[first]
        rate(a)
        rate(b)
        swapped = True


def by_support(used: np.ndarray, block: tuple[int, int]) -> Orders:
    """Orders that put filters with the same channels together, and channels with the same filters; ``used`` (groups, R,
    C) says which connections are not zero.

    They bring back the blocks of a weight that was pruned in blocks and then shuffled.
    """
    return Orders(
        np.array([_same(support, block[0]) for support in used]),
        np.array([_same(support.T, block[1]) for support in used]),
    )


def by_likeness(profiles: np.ndarray, block: tuple[int, int]) -> Orders:
    """Orders that put filters together whose connections are alike, and channels; ``profiles`` (groups, R, C) are
    scores of 0 or more.

    A good start for the search. Given which connections are not zero they do as `by_support`, also where some inside
    the blocks are zero by accident.
    """
    return Orders(
        np.array([_alike(profile, block[0]) for profile in profiles]),
        np.array([_alike(profile.T, block[1]) for profile in profiles]),
    )


def classes(used: np.ndarray) -> np.ndarray:
    """Numbers that are equal for equal rows of a bool (n, m) array, in the order of their first row."""
    _, first, inverse = np.unique(np.packbits(used, axis=1), axis=0, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse.ravel()]


def _same(used: np.ndarray, size: int) -> np.ndarray:
    """Rows sorted by class; classes that do not fill their blocks come last, the fuller ones first."""
    of_row = classes(used)
    rest = np.bincount(of_row)[of_row] % size
    return np.lexsort((np.arange(len(used)), of_row, -rest, rest > 0))


def _alike(profiles: np.ndarray, size: int) -> np.ndarray:
    """Rows in groups of ``size``; empty rows fill up the group of what is left over."""
    size = min(size, len(profiles))  # a block may be larger than the layer
    order = similar_order(np.pad(profiles, ((0, -len(profiles) % size), (0, 0))), size)
    return order[order < len(profiles)]


def run_sums(scores: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Sums over runs of ``size`` along an axis, float64; the last run may be shorter."""
    return np.add.reduceat(scores, np.arange(0, scores.shape[axis], size), axis=axis, dtype=np.float64)
