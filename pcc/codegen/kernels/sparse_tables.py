"""FKW weights in the order in which the two sparse convolution kernels read them."""

from dataclasses import dataclass

import numpy as np

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
    """A weight as `ConvSparseGather` and `InterleavedTile` read it."""

    patterns: np.ndarray
    """int32 (P, E): taps."""
    segments: np.ndarray
    """int32 (B * G * P + 1,): first connection of each (block of channels, filter group, pattern)."""
    channels: np.ndarray
    """int32 (K,): input channel of each connection."""
    weight: np.ndarray
    """fp32 (K, E, share)."""


def gather_tables(fkw: FKW, most_taps: int, block: int | None = None) -> GatherTables:
    """Connections of filter groups, ordered by block of ``block`` channels (one of all if there is none), group,
    pattern and channel."""
    connections, channels = connections_of(fkw, most_taps), fkw.shape[1] * fkw.groups
    block, groups = block or channels, fkw.shape[0] // fkw.share
    row = connections.channel // block * groups + connections.group
    segment = row * len(connections.patterns) + connections.pattern
    order = np.lexsort((connections.channel, segment))
    edges = np.arange(-(-channels // block) * groups * len(connections.patterns) + 1)
    segments = np.searchsorted(segment[order], edges).astype(np.int32)
    return GatherTables(
        connections.patterns.astype(np.int32),
        segments,
        connections.channel[order].astype(np.int32),
        connections.weight[order],
    )
