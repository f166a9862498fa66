"""FKW weights in the order in which the two sparse convolution kernels read them."""

from dataclasses import dataclass

import numpy as np

from pcc.dtype import INT32, DType
from pcc.sparsity.fkw import FKW, places


@dataclass(frozen=True)
class Connections:
    """The connections of an FKW weight one by one. Long patterns are cut into parts, so that a kernel program needs few
    taps at a time."""

    patterns: np.ndarray
    """int32 (P * parts, E): taps; a last part that is not full is filled up with its pattern's first tap, with zero
    weights."""
    group: np.ndarray
    """int64 (K,): filter group."""
    channel: np.ndarray
    """int64 (K,): input channel."""
    pattern: np.ndarray
    """int64 (K,): row of ``patterns``."""
    weight: np.ndarray
    """fp32 (K, E, share)."""


def parts_of(taps: int, most_taps: int) -> tuple[int, int]:
    """In how many parts a pattern is cut, and the taps of a part."""
    parts = -(-taps // most_taps)
    return parts, -(-taps // parts)


def connections_of(fkw: FKW, most_taps: int) -> Connections:
    """The connections in FKW's order, a connection of more than ``most_taps`` taps as several of equal size."""
    group, pattern = places(fkw)
    taps = fkw.patterns.shape[1]
    parts, size = parts_of(taps, most_taps)
    fill = parts * size - taps
    split_patterns = np.concatenate([fkw.patterns, np.repeat(fkw.patterns[:, :1], fill, axis=1)], axis=1).reshape(
        -1, size
    )
    weight = np.pad(fkw.weight, ((0, 0), (0, fill), (0, 0))).reshape(-1, size, fkw.share)
    split_pattern = (pattern[:, None] * parts + np.arange(parts)).ravel()
    return Connections(
        split_patterns, np.repeat(group, parts), np.repeat(fkw.index.astype(np.int64), parts), split_pattern, weight
    )


@dataclass(frozen=True)
class ScatterTables:
    """A weight as `ConvSparseScatter` reads it."""

    patterns: np.ndarray
    """int32 (P, E): taps."""
    blocks: np.ndarray
    """int32 (B + 1, 2): first filter and first segment of each block."""
    segments: np.ndarray
    """int32 (S + 1, 3): channel, pattern, first connection."""
    slots: np.ndarray
    """int32 (K,): place of the connection's filter in its block."""
    weight: np.ndarray
    """fp32 (K, E)."""


def scatter_tables(fkw: FKW, filters: int, run: int, most_taps: int) -> ScatterTables:
    """Connections of single filters in blocks of ``filters``, ordered for loops whose trip counts repeat.

    The order: block, run of ``run`` channels (few enough that their inputs stay in L1), length of the segment, channel,
    pattern, filter.
    """
    connections = connections_of(fkw, most_taps)
    place = (connections.group[:, None] * fkw.share + np.arange(fkw.share)).ravel()
    channel, pattern = np.repeat(connections.channel, fkw.share), np.repeat(connections.pattern, fkw.share)
    weight = connections.weight.transpose(0, 2, 1).reshape(-1, connections.patterns.shape[1])
    block = place // filters
    segment = (block * (channel.max(initial=0) + 1) + channel) * len(connections.patterns) + pattern
    _, inverse, length = np.unique(segment, return_inverse=True, return_counts=True)
    order = np.lexsort((place, pattern, channel, -length[inverse], channel // run, block))
    block, channel, pattern = block[order], channel[order], pattern[order]
    starts = np.flatnonzero(np.diff(segment[order], prepend=-1))
    segments = np.concatenate([np.stack([channel[starts], pattern[starts], starts], axis=1), [[0, 0, len(order)]]])
    edges = np.arange(-(-fkw.shape[0] // filters) + 1)
    blocks = np.stack([np.minimum(edges * filters, fkw.shape[0]), np.searchsorted(block[starts], edges)], axis=1)
    patterns, blocks, segments, slots = (
        array.astype(np.int32) for array in (connections.patterns, blocks, segments, (place % filters)[order])
    )
    return ScatterTables(patterns, blocks, segments, slots, weight[order])


@dataclass(frozen=True)
class GatherTables:
    """A weight as `ConvSparseGather` reads it."""

    patterns: np.ndarray
    """int32 (P, E): taps."""
    segments: np.ndarray
    """int32 (G * P + 1,): first connection of each (filter group, pattern)."""
    channels: np.ndarray
    """int32 (K,): input channel of each connection."""
    weight: np.ndarray
    """fp32 (K, E, share)."""


def gather_tables(fkw: FKW, most_taps: int) -> GatherTables:
    """Connections of filter groups, ordered by group, pattern and channel."""
    connections = connections_of(fkw, most_taps)
    segment = connections.group * len(connections.patterns) + connections.pattern
    order = np.lexsort((connections.channel, segment))
    edges = np.arange(fkw.shape[0] // fkw.share * len(connections.patterns) + 1)
    segments = np.searchsorted(segment[order], edges).astype(np.int32)
    return GatherTables(
        connections.patterns.astype(np.int32),
        segments,
        connections.channel[order].astype(np.int32),
        connections.weight[order],
    )


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


def users_of_channels(fkw: FKW, size: int) -> np.ndarray:
    """int (K,): how many filters of a group of ``size`` keep a channel, for each (group, channel) that any keeps.
    Windows are 1x1."""
    users = np.count_nonzero(_grouped(fkw, size), axis=1)
    return users[users > 0]


def shared_tables(fkw: FKW, size: int, channels: int, plane: int, dtype: DType) -> SharedTables:
    """Groups of ``size`` filters as they are stored, in blocks of ``channels`` input channels, which are ``plane``
    elements apart; weights as ``dtype``. Windows are 1x1."""
    rows, sets = _grouped(fkw, size), 1 << size
    kept_by = ((rows != 0) * (1 << np.arange(size))[:, None]).sum(axis=1)
    group, channel = np.nonzero(kept_by)
    place = (channel // channels * len(rows) + group) * sets + kept_by[group, channel]
    order = np.lexsort((channel, place))
    group, channel, place = group[order], channel[order], place[order]
    weight = rows.transpose(0, 2, 1)[group, channel]
    kept_first = np.take_along_axis(weight, np.argsort(weight == 0, axis=1, kind="stable"), axis=1).astype(dtype.numpy)
    kept_first = np.pad(kept_first, ((0, 0), (0, -size % weights_of_word(dtype))))
    fields = np.concatenate([(channel * plane).astype(np.int32)[:, None], kept_first.view(np.int32)], axis=1)
    words = np.array([words_of(members.bit_count(), dtype) for members in range(sets)])
    is_there = np.arange(fields.shape[1]) <= words[kept_by[group, channel]][:, None]
    counts = np.bincount(place, minlength=-(-rows.shape[2] // channels) * len(rows) * sets).reshape(-1, sets)
    lists = counts.astype(np.int32)
    lists[1:, 0] = (
        (counts * (1 + words)).sum(axis=1).cumsum()[:-1]
    )  # nothing is kept by the empty set: its place holds the start
    filters = np.concatenate([fkw.reorder, np.repeat(fkw.reorder[-1:], -len(fkw.reorder) % size)])
    shared = size > 1 and bool((kept_by[group, channel] == sets - 1).all())
    lists = lists[:, [0, -1]] if shared else lists
    return SharedTables(len(rows), shared, filters.astype(np.int32), lists, fields[is_there])
