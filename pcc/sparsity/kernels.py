"""Patterns, connectivity, or both at once, as one structure (PCONV, Ma et al., 2020; PatDNN, Niu et al., 2020).

Both cut connections: patterns leave 4 of 9 taps in each, connectivity leaves one connection in so many. The projection
on both is joint and exact (`pcc.sparsity.joint`): connections compete by what they are worth after their best pattern.
The papers' ADMM has a variable for each set instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np

from pcc.errors import PccError
from pcc.sparsity import connectivity, fkw, joint, pattern
from pcc.sparsity.budget import budget
from pcc.sparsity.sharing import Sharing, find_sharing
from pcc.sparsity.structure import Packed
from pcc.sparsity.zeros import Zeros

MINED = range(4, 13)
"""How many patterns may be mined: PatDNN's 4 to 12."""

_TABLES = ("patterns", "reorder", "offset", "index", "stride")


@dataclass(frozen=True)
class Kernels(Zeros):
    """One connection in ``rate`` stays, cut down to one of the patterns. With 4 of 9 taps that is 2.25 * ``rate`` times
    fewer weights.

    With ``share`` above 1 the projection is exact for the grouping of filters it takes: the grouping that the zeros of
    a pruned weight show, else the better of consecutive and like filters. The best of all groupings is not searched
    for.
    """

    name: ClassVar[str] = "kernels"

    patterns: str | int | tuple[tuple[int, ...], ...] | None = None
    """``designed``: PCONV's four; a number: so many, mined by `settle`; tap positions in row-major order; None:
    connections keep all taps."""
    rate: float = 1.0
    scope: str = "layer"
    """Where the rate is counted: over the layer, or in every ``filter`` alike."""
    share: int = 1
    """Filters that keep the same channels and patterns: 1, 2 or 4."""
    kernel: tuple[int, int] = (3, 3)
    """The size that patterns are for."""
    order: tuple[int, ...] | None = field(default=None, repr=False)
    """Filters that are neighbours here share; None: those that suit a weight. Training fixes it (`arranged`), and
    detection where it is none of places."""

    def __post_init__(self) -> None:
        budget(1, self.rate)  # refuses rates below 1
        connectivity.check_scope(self.scope)
        connectivity.check_share(self.share, self.share, 1)
        if isinstance(self.patterns, str) and self.patterns != "designed":
            raise PccError(
                f"kernels: unknown patterns '{self.patterns}': give designed, a number to mine, or lists of tap "
                "positions"
            )
        if isinstance(self.patterns, int) and self.patterns not in MINED:
            raise PccError(f"kernels: {self.patterns} patterns: mine {MINED[0]} to {MINED[-1]}")
        if isinstance(self.patterns, str | int) and self.kernel != (3, 3):
            raise PccError(
                "kernels: designed and mined patterns are for 3x3 connections: give tap positions for other sizes"
            )
        if isinstance(self.patterns, tuple):
            pattern.pattern_set(self.patterns, self.kernel[0] * self.kernel[1])

    def settle(self, weights: Sequence[np.ndarray]) -> Self:
        """With the patterns that are most frequent in the 3x3 connections of these weights, where patterns are to be
        mined."""
        if not isinstance(self.patterns, int):
            return self
        mined = pattern.mine([weight for weight in weights if weight.shape[2:] == (3, 3)], self.patterns)
        return replace(self, patterns=tuple(tuple(taps) for taps in mined.tolist()))

    def arranged(self, weight: np.ndarray, groups: int = 1) -> Self:
        """With the filters that share in this weight, or would best."""
        return (
            self
            if self.share == 1
            else replace(self, order=tuple(self._cut(_four_dimensional(weight), groups).order.tolist()))
        )

    def fits(self, weight: np.ndarray, groups: int = 1) -> bool:
        """Whether `project` takes weights of this shape."""
        return self._misfit(_four_dimensional(weight), groups) is None

    def keep(self, scores: np.ndarray, groups: int = 1) -> np.ndarray:
        four = _four_dimensional(scores)
        patterns = self._patterns(four, groups)
        order = None if self.order is None else np.array(self.order)
        choice, _ = joint.choose(
            pattern.tally(four, patterns), self.rate, scope=self.scope, share=self.share, groups=groups, order=order
        )
        return pattern.apply(np.ones(four.shape, dtype=np.float32), patterns, choice).reshape(scores.shape) != 0

    def project(self, weight: np.ndarray, groups: int = 1) -> np.ndarray:
        if self.share == 1:
            return super().project(weight, groups)
        return self._share(_four_dimensional(weight), groups).reshape(weight.shape)

    def _share(self, weight: np.ndarray, groups: int) -> np.ndarray:
        """Cuts until nothing changes, so that the projection is idempotent. The first cut nearly always stands: its
        zeros show its grouping. Where the weight itself had zeros they may hide it, and another grouping cuts once
        more; each cut only removes, so this ends.
        """
        cut = self._cut(weight, groups).weight
        while not np.array_equal(cut, weight):
            weight, cut = cut, self._cut(cut, groups).weight
        return cut

    def _cut(self, weight: np.ndarray, groups: int) -> joint.Projection:
        """The best projection for the groupings that are tried; first of all the one that changes nothing."""
        patterns = self._patterns(weight, groups)

        def project(order: np.ndarray | None) -> joint.Projection:
            return joint.project(
                weight, patterns, self.rate, scope=self.scope, share=self.share, groups=groups, order=order
            )

        if self.order is not None:
            return project(np.array(self.order))
        shown = self.detect(weight, groups) if self.share > 1 and not weight.all() else "no grouping"
        if isinstance(shown, str) or shown.share < self.share:
            return project(None)
        as_shown = project(shown.places(len(weight)))
        if np.array_equal(as_shown.weight, weight):
            return as_shown
        return max(as_shown, project(None), key=lambda cut: cut.kept)

    def _patterns(self, weight: np.ndarray, groups: int) -> np.ndarray:
        misfit = self._misfit(weight, groups)
        if misfit:
            raise PccError(misfit)
        if isinstance(self.patterns, int):
            raise PccError(
                f"kernels: the {self.patterns} patterns are not mined yet: settle the structure on the weights first"
            )
        if self.patterns is None:
            return pattern.every_tap(weight.shape[2] * weight.shape[3])
        return (
            pattern.DESIGNED
            if isinstance(self.patterns, str)
            else pattern.pattern_set(self.patterns, weight.shape[2] * weight.shape[3])
        )

    def _misfit(self, weight: np.ndarray, groups: int) -> str | None:
        if self.patterns is not None and weight.shape[2:] != self.kernel:
            sizes = ["x".join(map(str, size)) for size in (self.kernel, weight.shape[2:])]
            return (
                f"the patterns are for {sizes[0]} connections, these are {sizes[1]}: choose other layers, or "
                "connectivity alone (no patterns)"
            )
        try:
            connectivity.check_share(self.share, len(weight), groups)
        except PccError as error:
            return str(error)
        if self.order is not None and not _is_order(self.order, len(weight), groups):
            return f"kernels: the order does not name each of {len(weight)} filters once, those of a group together"
        return None

    def places(self, filters: int) -> np.ndarray:
        """The order of filters, int64 (O,): original filter of each place."""
        return np.arange(filters) if self.order is None else np.array(self.order)

    def taps(self, weight: np.ndarray) -> np.ndarray:
        """The patterns that are known by now, int32 (P, E), for connections of a weight; one of all taps where there
        are none."""
        return self._patterns(_four_dimensional(weight), 1)

    @classmethod
    def detect(cls, weight: np.ndarray, groups: int = 1) -> Self | str:
        """Patterns, missing connections or both, with the largest groups of filters that share them."""
        four = _four_dimensional(weight)
        filters, inputs, kh, kw = four.shape
        if groups > 1 and inputs == 1:
            return "depthwise: a filter has one connection"
        used = four.reshape(filters * inputs, kh * kw) != 0
        if not used.any():
            return "every weight is zero"
        found = pattern.detect_shapes(used)
        if isinstance(found, str) and used.any(axis=1).all():
            return f"no connection is all zero and {found}"
        sharing = find_sharing(four, pattern.every_tap(kh * kw) if isinstance(found, str) else found, groups)
        patterns = (
            None if sharing.patterns.shape[1] == kh * kw else tuple(tuple(taps) for taps in sharing.patterns.tolist())
        )
        rate = filters * inputs / sharing.stored
        order = None if np.array_equal(sharing.order, np.arange(filters)) else tuple(sharing.order.tolist())
        scope = "filter" if rate > 1 and _balanced(four, sharing) else "layer"
        return cls(patterns, rate, scope, sharing.share, (kh, kw), order)

    def pack(self, weight: np.ndarray, groups: int = 1) -> Packed:
        """The arrays of FKW (`pcc.sparsity.fkw`)."""
        four = _four_dimensional(weight)
        cut = self._cut(four, groups)
        if not np.array_equal(cut.weight, four):
            raise PccError(
                "kernels: the weight does not have these patterns or has too many connections: project it first"
            )
        packed = fkw.pack(four, groups, self._patterns(four, groups), self.share, cut.order)
        index = {name: getattr(packed, name) for name in _TABLES}
        return Packed(weight.shape, {"weight": packed.weight}, {**index, "groups": np.array([groups], dtype=np.int32)})

    @staticmethod
    def unpack(packed: Packed) -> np.ndarray:
        filters, inputs, kh, kw = (*packed.shape, 1, 1)[:4]
        values = packed.data["weight"]
        tables = {name: packed.index[name] for name in _TABLES}
        stored = fkw.FKW(
            (filters, inputs, kh, kw), int(packed.index["groups"][0]), values.shape[2], weight=values, **tables
        )
        fkw.validate(stored)
        return fkw.unpack(stored).reshape(packed.shape)


def _is_order(order: tuple[int, ...], filters: int, groups: int) -> bool:
    if len(order) != filters:
        return False
    by_group = np.sort(np.array(order).reshape(groups, -1), axis=1)
    return bool((by_group.ravel() == np.arange(filters)).all())


def _four_dimensional(weight: np.ndarray) -> np.ndarray:
    """A linear layer's weight as that of a 1x1 convolution."""
    return weight[:, :, None, None] if weight.ndim == 2 else weight


def _balanced(weight: np.ndarray, found: Sharing) -> bool:
    """Whether every group of filters keeps as many connections."""
    of_group = weight[found.order].reshape(len(weight) // found.share, found.share, weight.shape[1], -1)
    connections = np.count_nonzero(np.count_nonzero(of_group, axis=(1, 3)), axis=1)
    return bool((connections == connections[0]).all())
