"""FKW weights of 1x1 windows in the lists in which `pcc.codegen.kernels.pointwise_tile` reads them."""

from dataclasses import dataclass

import numpy as np

from pcc.codegen.kernels.even_lists import even_lists
from pcc.dtype import INT32, DType
from pcc.sparsity.fkw import FKW, places


@dataclass(frozen=True)
class SharedTables:
    """A weight of 1x1 windows as `ConvSparsePointwise` reads it: channels listed by the set of a group's filters that
    keep them, block after block."""

    groups: int
    shared: bool
    """Whether all filters of every group, of several, keep the same channels: only the set of all has entries."""
    filters: np.ndarray
    """int32 (G * size,): the original filter of each place; the last group is filled up with its last filter once
    more."""
    lists: np.ndarray
    """int32 (B * G, 2^size), or (B * G, 2) if ``shared``: for each block of channels and each group, where its entries
    start, and how many each set of filters has."""
    entries: np.ndarray
    """int32: for each channel of a list where its plane is, and the bits of the weights of the filters in its set, in
    order, in `words_of` so many."""


def weights_of_word(dtype: DType) -> int:
    """Weights of a type in an int32."""
    return INT32.bytes // dtype.bytes


def words_of(weights: int, dtype: DType) -> int:
    """The int32 that so many weights of a type take."""
    return -(-weights // weights_of_word(dtype))


def _grouped(fkw: FKW, size: int) -> np.ndarray:
    """(G, size, C): the dense rows of stored filters in groups of ``size``; the last group is filled up with its last
    filter."""
    group, _ = places(fkw)
    rows = np.zeros((fkw.shape[0], fkw.groups * fkw.shape[1]), fkw.weight.dtype)
    for member in range(fkw.share):
        rows[group * fkw.share + member, fkw.index] = fkw.weight[:, 0, member]
    fill = -len(rows) % size
    return np.concatenate([rows, np.repeat(rows[-1:], fill, axis=0)]).reshape(-1, size, rows.shape[1])


@dataclass(frozen=True)
class _Entries:
    """Channels that filters of a group keep, before they are in lists."""

    row: np.ndarray
    """int (K,): block of channels times G, plus group."""
    channel: np.ndarray
    """int (K,)"""
    members: np.ndarray
    """int (K,): the filters that it is listed for, a bit each."""
    weight: np.ndarray
    """fp32 (K, size)."""

    def counts(self, rows: int) -> np.ndarray:
        """int (rows, 2^size): how many of each row are listed for each set of filters."""
        sets = 1 << self.weight.shape[1]
        return np.bincount(self.row * sets + self.members, minlength=rows * sets).reshape(rows, sets)


def _entries(dense: np.ndarray, channels: int) -> _Entries:
    """Those of groups (G, size, C), in blocks of ``channels``."""
    kept_by = ((dense != 0) * (1 << np.arange(dense.shape[1]))[:, None]).sum(axis=1)
    group, channel = np.nonzero(kept_by)
    row = channel // channels * len(dense) + group
    return _Entries(row, channel, kept_by[group, channel], dense.transpose(0, 2, 1)[group, channel])


def _even(entries: _Entries, groups: int, blocks: int, channels: int) -> _Entries:
    """Listed so that the lists of each set of filters are of one length; entries that only fill lists up read the first
    channel of their block."""
    evened, members = even_lists(entries.counts(blocks * groups)), entries.members.copy()
    for move in evened.moves:
        (found,) = np.nonzero(members == move.source)
        found = found[np.argsort(entries.row[found], kind="stable")]
        row = entries.row[found]
        turn = np.arange(len(found)) - np.searchsorted(row, row)
        members[found[turn < move.entries[row]]] = move.target
    times = evened.filled[evened.filled > 0]
    row, filled = (np.repeat(of_list, times) for of_list in np.nonzero(evened.filled))
    return _Entries(
        np.concatenate([entries.row, row]),
        np.concatenate([entries.channel, row // groups * channels]),
        np.concatenate([members, filled]),
        np.pad(entries.weight, ((0, len(row)), (0, 0))),
    )


def list_lengths(fkw: FKW, size: int, channels: int) -> np.ndarray:
    """int (B * G, 2^size): how many entries `shared_tables` lists for each set of a group's filters, before lists are
    made even."""
    dense = _grouped(fkw, size)
    return _entries(dense, channels).counts(-(-dense.shape[2] // channels) * len(dense))


def shared_tables(
    fkw: FKW, size: int, channels: int, plane: int, dtype: DType, even: bool = False, together: int | None = None
) -> SharedTables:
    """Groups of ``size`` filters as they are stored, in blocks of ``channels`` input channels, which are ``plane``
    elements apart; weights as ``dtype``. ``even``: the lists of a set of filters have the same length in all groups,
    but for the set of all. The entries of ``together`` groups, if not all, follow each other, block after block."""
    dense = _grouped(fkw, size)
    groups, sets, blocks = len(dense), 1 << size, -(-dense.shape[2] // channels)
    entries = _entries(dense, channels)
    if even:
        entries = _even(entries, groups, blocks, channels)
    of_block, group = np.divmod(np.arange(blocks * groups), groups)
    rows = np.lexsort((group, of_block, group // (together or groups)))  # as they lie behind each other
    order = np.lexsort((entries.channel, entries.members, np.argsort(rows)[entries.row]))
    channel, members, weight = entries.channel[order], entries.members[order], entries.weight[order]
    is_listed = members[:, None] >> np.arange(size) & 1
    listed_first = np.take_along_axis(weight, np.argsort(1 - is_listed, axis=1, kind="stable"), axis=1)
    listed_first = np.pad(listed_first.astype(dtype.numpy), ((0, 0), (0, -size % weights_of_word(dtype))))
    fields = np.concatenate([(channel * plane).astype(np.int32)[:, None], listed_first.view(np.int32)], axis=1)
    words = np.array([words_of(of_set.bit_count(), dtype) for of_set in range(sets)])
    is_there = np.arange(fields.shape[1]) <= words[members][:, None]
    counts = entries.counts(blocks * groups)
    lists, sizes = counts.astype(np.int32), (counts * (1 + words)).sum(axis=1)
    lists[rows[1:], 0] = sizes[rows].cumsum()[:-1]  # nothing is listed for the empty set: its place holds the start
    filters = np.concatenate([fkw.reorder, np.repeat(fkw.reorder[-1:], -len(fkw.reorder) % size)])
    shared = size > 1 and bool((members == sets - 1).all())
    lists = lists[:, [0, -1]] if shared else lists
    return SharedTables(groups, shared, filters.astype(np.int32), lists, fields[is_there])
