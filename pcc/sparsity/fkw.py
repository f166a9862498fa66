"""FKW: filter-kernel-weight storage of sparse convolution weights (PatDNN, Niu et al., ASPLOS 2020), for patterns of
any size.

A pattern is the set of taps a connection keeps. Pattern pruning keeps 4 of 9 taps in one of a few shapes; connectivity
pruning alone is one pattern with all taps; so one format serves both. Filters are stored in groups of ``share`` that
share their list of (input channel, pattern): 1 is PatDNN's own.
"""

from dataclasses import dataclass

import numpy as np

from pcc.errors import PccError
from pcc.sparsity.pattern import every_tap, fit


@dataclass(frozen=True)
class FKW:
    """A packed weight. G = filters / share; K = connections stored, one for each (filter group, input channel) kept; P
    patterns of E taps."""

    shape: tuple[int, int, int, int]
    """(O, I/groups, kh, kw) of the dense weight."""
    groups: int
    """The convolution's groups (not the filter groups)."""
    share: int
    """Filters that share channels and patterns: 1, 2 or 4; divides O (and O / groups)."""
    patterns: np.ndarray
    """int32 (P, E): taps of each pattern as row-major positions in kh*kw, ascending."""
    reorder: np.ndarray
    """int32 (O,): the original filter of each stored filter: their order, in PatDNN's reorder array."""
    offset: np.ndarray
    """int32 (G + 1,): where each filter group's connections start."""
    index: np.ndarray
    """int32 (K,): input channel of each connection, absolute (0..C_in-1)."""
    stride: np.ndarray
    """int32 (G, P + 1): where each pattern's connections start and end inside a filter group, counted from
    ``offset``."""
    weight: np.ndarray
    """fp32 (K, E, share): the kept weights; the filters of a group lie next to each other."""


def pack(
    weight: np.ndarray,
    groups: int = 1,
    patterns: np.ndarray | None = None,
    share: int = 1,
    order: np.ndarray | None = None,
) -> FKW:
    """The FKW form of a weight (O, I/groups, kh, kw) whose zeros follow the patterns (P, E); without patterns: one with
    every tap.

    ``order`` (O,) is the original filter of each place (default: as they stand); ``share`` neighbours in it share
    channels and patterns. A connection is stored where any filter of its group has a non-zero, under the first pattern
    that holds them all. Inside a group connections are ordered by pattern, then by input channel. A filter's place may
    change freely as long as filter groups do not mix convolution groups. Negative zeros become zeros. Raises `PccError`
    where a connection fits no pattern or the numbers do not divide.
    """
    filters, inputs, kh, kw = weight.shape
    taps = kh * kw
    patterns = every_tap(taps) if patterns is None else np.ascontiguousarray(patterns, dtype=np.int32)
    order = np.arange(filters, dtype=np.int32) if order is None else np.asarray(order, dtype=np.int32)
    if not np.array_equal(np.sort(order), np.arange(filters)):
        raise PccError(f"the order of filters is not a permutation of 0..{filters - 1}")
    if (filters // groups) % share:
        raise PccError(
            f"{filters // groups} filters of a convolution group do not divide into filter groups of {share}"
        )
    conv_group = (order // (filters // groups)).reshape(-1, share)
    if (conv_group != conv_group[:, :1]).any():
        raise PccError("a filter group mixes filters of several convolution groups")

    blocks = weight[order].reshape(filters // share, share, inputs, taps)
    choice = fit((blocks != 0).any(axis=1).reshape(-1, inputs, kh, kw), patterns)
    block, channel = np.nonzero(choice >= 0)
    chosen = choice[block, channel]
    sequence = np.lexsort((channel, chosen, block))
    block, channel, chosen = block[sequence], channel[sequence], chosen[sequence]

    per_pattern = np.bincount(block * len(patterns) + chosen, minlength=len(blocks) * len(patterns)).reshape(
        len(blocks), -1
    )
    stride = np.concatenate([np.zeros((len(blocks), 1), dtype=np.int64), per_pattern.cumsum(axis=1)], axis=1)
    connections = blocks[block[:, None], :, channel[:, None], patterns[chosen]]
    return FKW(
        shape=(filters, inputs, kh, kw),
        groups=groups,
        share=share,
        patterns=patterns,
        reorder=order,
        offset=np.concatenate([[0], stride[:, -1].cumsum()]).astype(np.int32),
        index=(channel + conv_group[block, 0] * inputs).astype(np.int32),
        stride=stride.astype(np.int32),
        weight=np.ascontiguousarray(connections + np.float32(0), dtype=np.float32),
    )


def unpack(fkw: FKW) -> np.ndarray:
    """The dense weight (O, I/groups, kh, kw) in the original order of filters, of the type that ``weight`` has: bit for
    bit what was packed."""
    filters, inputs, kh, kw = fkw.shape
    blocks = np.zeros((filters // fkw.share, fkw.share, inputs, kh * kw), dtype=fkw.weight.dtype)
    block, chosen = places(fkw)
    blocks[block[:, None], :, (fkw.index % inputs)[:, None], fkw.patterns[chosen]] = fkw.weight
    weight = np.empty((filters, inputs, kh, kw), dtype=fkw.weight.dtype)
    weight[fkw.reorder] = blocks.reshape(fkw.shape)
    return weight


def places(fkw: FKW) -> tuple[np.ndarray, np.ndarray]:
    """(filter group, pattern) of every connection as it is stored, each int64 (K,)."""
    counts = np.diff(fkw.stride, axis=1)
    flat = np.repeat(np.arange(counts.size), counts.ravel())
    return flat // counts.shape[1], flat % counts.shape[1]


def validate(fkw: FKW) -> None:
    """Raises `PccError` naming the first rule that packed arrays break: shapes, types, ranges, order, and that no
    connection is stored twice."""
    filters, inputs, kh, kw = fkw.shape
    size = fkw.share * fkw.groups
    divides = fkw.share in (1, 2, 4) and size > 0 and filters % size == 0
    _require(divides, f"{filters} filters, {fkw.groups} groups and filter groups of {fkw.share} do not divide")
    blocks, connections = filters // fkw.share, len(fkw.index)
    _require(fkw.patterns.ndim == 2 and fkw.patterns.size > 0, "patterns are not a non-empty (P, E) array")
    count, entries = fkw.patterns.shape
    shapes = {
        "reorder": (filters,),
        "offset": (blocks + 1,),
        "index": (connections,),
        "stride": (blocks, count + 1),
        "weight": (connections, entries, fkw.share),
    }
    for name, shape in shapes.items():
        array: np.ndarray = getattr(fkw, name)
        kind = np.float32 if name == "weight" else np.int32
        _require(
            array.shape == shape and array.dtype == kind,
            f"{name} is {array.dtype}{list(array.shape)}, not {np.dtype(kind)}{list(shape)}",
        )
    _require(fkw.patterns.min() >= 0 and fkw.patterns.max() < kh * kw, f"a pattern has a tap outside 0..{kh * kw - 1}")
    _require(bool((np.diff(fkw.patterns, axis=1) > 0).all()), "the taps of a pattern do not ascend")
    _require(np.array_equal(np.sort(fkw.reorder), np.arange(filters)), "reorder is not a permutation of the filters")
    conv_group = (fkw.reorder // (filters // fkw.groups)).reshape(blocks, fkw.share)
    _require(bool((conv_group == conv_group[:, :1]).all()), "a filter group mixes convolution groups")
    _require(fkw.offset[0] == 0 and fkw.offset[-1] == connections, f"offset does not run from 0 to {connections}")
    _require(
        bool((fkw.stride[:, 0] == 0).all() and (np.diff(fkw.stride, axis=1) >= 0).all()),
        "stride does not ascend from 0",
    )
    _require(
        np.array_equal(fkw.stride[:, -1], np.diff(fkw.offset)),
        "stride and offset disagree about the connections of a filter group",
    )
    block, chosen = places(fkw)
    _require(
        np.array_equal(fkw.index // inputs, conv_group[block, 0]),
        "an input channel lies outside the convolution group of its filter",
    )
    keys = (block * count + chosen) * np.int64(inputs) + fkw.index % inputs
    _require(bool((np.diff(keys) > 0).all()), "input channels do not ascend inside a pattern")
    pairs = block * np.int64(inputs) + fkw.index % inputs
    _require(len(np.unique(pairs)) == connections, "an input channel is stored twice in one filter group")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise PccError(f"damaged FKW weight: {otherwise}")
