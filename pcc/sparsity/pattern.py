"""Patterns: every connection keeps its taps in one of a few shapes, so that one branch-free loop serves all connections
of a shape.

A pattern set is an int32 array (P, E): P patterns of E taps, each a row of ascending row-major positions in kh*kw. Two
sources for 3x3 connections: the four patterns designed in PCONV (Ma et al., AAAI 2020, from the Laplacian of Gaussian:
the centre and three of its four neighbours), and patterns mined from trained weights as in PatDNN (Niu et al., ASPLOS
2020: the centre and the three largest others, the most frequent win). The centre is always kept. Connections of other
sizes take the patterns their caller gives.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np

from pcc.errors import PccError

DESIGNED = np.array([[1, 3, 4, 5], [1, 3, 4, 7], [3, 4, 5, 7], [1, 4, 5, 7]], dtype=np.int32)
"""PCONV's SCP1 to SCP4: T shapes that lack the neighbour below, right of, above and left of the centre."""

MOST_PATTERNS = 16
"""Detection gives up beyond this many shapes: a loop for each would no longer be a few loops."""

_CENTRE = 4
_OTHERS = np.array([0, 1, 2, 3, 5, 6, 7, 8])
_NATURAL = np.array(list(combinations(_OTHERS, 3)))
"""The 56 natural patterns without their centre, in lexicographic order."""


def mine(weights: Iterable[np.ndarray], count: int, adjacent: bool = False) -> np.ndarray:
    """The ``count`` most frequent natural patterns of 3x3 connections, int32 (at most count, 4), most frequent first.

    ``weights`` are (O, I, 3, 3). A connection's natural pattern is its centre and the three largest magnitudes among
    the other eight (ties: the lower position). Connections that are all zero have no vote. Ties between patterns go to
    the one that reads the fewest inputs for a tile of outputs, which runs fastest, then to the lexicographically lower.
    With ``adjacent`` only patterns whose taps touch side by side can win: a connection votes for the one that keeps
    most of it. Fewer than ``count`` come back only where fewer occur.
    """
    natural = np.array(
        [rank for rank, taps in enumerate(_NATURAL.tolist()) if not adjacent or _touch([_CENTRE, *taps])]
    )
    votes = np.zeros(len(_NATURAL), dtype=np.int64)
    for weight in weights:
        if weight.ndim != 4 or weight.shape[2:] != (3, 3):
            raise PccError(f"patterns are mined from weights of shape (O, I, 3, 3), not {tuple(weight.shape)}")
        connections = weight.reshape(-1, 9)
        magnitudes = np.abs(connections[connections.any(axis=1)])
        chosen = _adjacent(magnitudes, natural) if adjacent else _largest(magnitudes)
        votes += np.bincount(chosen, minlength=len(votes))
    winners = [rank for rank in np.lexsort((_REACH, -votes))[:count] if votes[rank]]
    if not winners:
        raise PccError("no pattern can be mined: there is no 3x3 connection with a weight that is not zero")
    return np.array([sorted([_CENTRE, *_NATURAL[rank]]) for rank in winners], dtype=np.int32)


def _largest(magnitudes: np.ndarray) -> np.ndarray:
    """For each connection (n, 9) the rank of its natural pattern."""
    rank_of_bits = np.full(1 << 9, -1)
    rank_of_bits[(1 << _NATURAL).sum(axis=1)] = np.arange(len(_NATURAL))
    largest = _OTHERS[np.argsort(-magnitudes[:, _OTHERS], axis=1, kind="stable")[:, :3]]
    return rank_of_bits[(1 << largest).sum(axis=1)]


def _adjacent(magnitudes: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """For each connection (n, 9) the one of those patterns that keeps most of it."""
    kept = tally(magnitudes.reshape(-1, 1, 3, 3).astype(np.float64) ** 2, _NATURAL[ranks])[:, 0]
    return ranks[kept.argmax(axis=1)]


def _touch(taps: Sequence[int]) -> bool:
    """Whether the taps of a 3x3 window are in one piece, each side by side with another."""
    piece, size = {taps[0]}, 0
    while len(piece) > size:
        size = len(piece)
        piece |= {
            tap for tap in taps if any(abs(tap // 3 - other // 3) + abs(tap % 3 - other % 3) == 1 for other in piece)
        }
    return size == len(taps)


def _reach(taps: Sequence[int], rows: int = 3, columns: int = 7) -> int:
    """How many inputs a tile of outputs reads with the centre and these taps."""
    return len(
        {
            (row + tap // 3, column + tap % 3)
            for tap in (_CENTRE, *taps)
            for row in range(rows)
            for column in range(columns)
        }
    )


_REACH = np.array([_reach(taps) for taps in _NATURAL.tolist()])


def every_tap(taps: int) -> np.ndarray:
    """The one pattern that keeps everything, (1, taps): connectivity pruning alone."""
    return np.arange(taps, dtype=np.int32)[None]


def pattern_set(shapes: Iterable[Sequence[int]], taps: int) -> np.ndarray:
    """A pattern set from tap lists of any lengths, int32 (P, E): shorter ones are filled up, duplicates and subsets
    dropped, order kept.

    A short pattern takes further taps the other patterns use most (ties: the lower position), so that E is the length
    of the longest.
    """
    sets = [frozenset(shape) for shape in shapes]
    if not sets or any(not pattern or min(pattern) < 0 or max(pattern) >= taps for pattern in sets):
        raise PccError(f"a pattern is a list of positions 0..{taps - 1} with at least one entry")
    maximal = [pattern for pattern in dict.fromkeys(sets) if not any(pattern < other for other in sets)]
    entries = max(len(pattern) for pattern in maximal)
    popularity = Counter(tap for pattern in maximal for tap in pattern)
    by_popularity = sorted(range(taps), key=lambda tap: (-popularity[tap], tap))
    full = [
        tuple(sorted([*pattern, *[tap for tap in by_popularity if tap not in pattern][: entries - len(pattern)]]))
        for pattern in maximal
    ]
    return np.array(list(dict.fromkeys(full)), dtype=np.int32)


def masks(patterns: np.ndarray, taps: int) -> np.ndarray:
    """The patterns as bool (P, taps)."""
    mask = np.zeros((len(patterns), taps), dtype=bool)
    np.put_along_axis(mask, patterns.astype(np.int64), True, axis=1)
    return mask


def scores(weight: np.ndarray, patterns: np.ndarray) -> np.ndarray:
    """What each pattern would keep of each connection: squared norms, float64 (O, I, P)."""
    return tally(np.square(weight, dtype=np.float64), patterns)


def tally(values: np.ndarray, patterns: np.ndarray) -> np.ndarray:
    """The sum of values (O, I, kh, kw) under each pattern, float64 (O, I, P).

    Taps are added one after the other, never by a BLAS, so a connection scores the same whatever stands beside it and
    projections are idempotent.
    """
    outputs, inputs, kh, kw = values.shape
    of_tap = np.ascontiguousarray(values.reshape(outputs * inputs, kh * kw).T, dtype=np.float64)
    total = np.zeros((len(patterns), outputs * inputs))
    for sums, taps in zip(total, patterns, strict=True):
        for tap in taps:
            sums += of_tap[tap]
    return np.ascontiguousarray(total.T).reshape(outputs, inputs, len(patterns))


def apply(weight: np.ndarray, patterns: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """The weight with connection (o, i) cut down to pattern ``choice[o, i]``, or to nothing where that is -1."""
    taps = weight.shape[2] * weight.shape[3]
    allowed = np.vstack([masks(patterns, taps), np.zeros((1, taps), dtype=bool)])
    return np.where(allowed[choice].reshape(weight.shape), weight, np.float32(0))


def detect_shapes(used: np.ndarray) -> np.ndarray | str:
    """The pattern set that connections follow, int32 (P, E) in lexicographic order, or why there is none; from the taps
    that each connection uses, bool (n, taps).

    All-zero connections are left out (that is connectivity). A shape contained in another is that pattern with an
    accidental zero.
    """
    taps = used.shape[1]
    if not used.any():
        return "every weight is zero"
    if used.all(axis=1).any():
        return f"some connections use all {taps} taps"
    shapes = _distinct(used)
    sizes = shapes.sum(axis=1)
    contained = (shapes @ shapes.T.astype(np.int32) == sizes[:, None]) & (sizes[:, None] < sizes)
    maximal = shapes[~contained.any(axis=1)]
    if len(maximal) > MOST_PATTERNS:
        return f"connections have {len(maximal)} different shapes, more than {MOST_PATTERNS} patterns"
    return np.array(
        sorted(pattern_set([np.flatnonzero(shape).tolist() for shape in maximal], taps).tolist()), dtype=np.int32
    )


def _distinct(used: np.ndarray) -> np.ndarray:
    """The different rows of a bool (n, taps) array that are not empty."""
    taps = used.shape[1]
    codes = np.zeros((len(used), -(-taps // 64) * 8), dtype=np.uint8)
    codes[:, : -(-taps // 8)] = np.packbits(used, axis=1)
    words = codes.view(np.uint64)
    unique = np.unique(words[:, 0])[:, None] if words.shape[1] == 1 else np.unique(words, axis=0)
    rows = np.unpackbits(np.ascontiguousarray(unique).view(np.uint8), axis=1, count=taps).astype(bool)
    return rows[rows.any(axis=1)]


def fit(weight: np.ndarray, patterns: np.ndarray) -> np.ndarray:
    """The first pattern that holds all of a connection's non-zeros, int64 (O, I), -1 for connections that are all zero.

    Raises `PccError` where a connection fits none.
    """
    outputs, inputs, kh, kw = weight.shape
    used = weight.reshape(outputs, inputs, kh * kw) != 0
    outside = used.astype(np.float32) @ (~masks(patterns, kh * kw)).T.astype(np.float32)
    choice = (outside == 0).argmax(axis=2)
    misfits = np.argwhere(outside.min(axis=2) > 0)
    if len(misfits):
        filter_, channel = misfits[0]
        taps = np.flatnonzero(used[filter_, channel]).tolist()
        raise PccError(
            f"{len(misfits)} connections fit no pattern: the first is filter {filter_}, channel {channel}, with taps "
            f"{taps}"
        )
    return np.where(used.any(axis=2), choice, -1)
