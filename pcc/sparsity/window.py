"""Window and combined-kernel pruning (Campfire, Gamboa et al., 2020): every connection keeps its largest taps, in
whatever shape; every filter as many connections.

Patterns (`pcc.sparsity.kernels`) are the same cut with the shapes confined to a few. A window that happens to use 16
shapes or fewer compiles as patterns, others as a dense layer. Both cuts together are one projection, and exact:
connections compete by what their window has left.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from pcc.errors import PccError
from pcc.sparsity.budget import budget
from pcc.sparsity.connectivity import select
from pcc.sparsity.places import pack_nonzeros, unpack_nonzeros
from pcc.sparsity.structure import Packed
from pcc.sparsity.zeros import Zeros


@dataclass(frozen=True)
class Window(Zeros):
    """In every connection one tap in ``rate`` stays (2.25 keeps 4 of 9), in every filter one connection in ``kernels``.

    The one tap of a 1x1 connection, and of a linear layer's, stays as long as the connection does.
    """

    name: ClassVar[str] = "window"

    rate: float
    kernels: float = 1.0

    def __post_init__(self) -> None:
        budget(1, self.rate)  # refuses rates below 1
        budget(1, self.kernels)

    def keep(self, scores: np.ndarray, groups: int = 1) -> np.ndarray:
        of_tap = _connections(scores)
        window = np.zeros(of_tap.shape, dtype=bool)
        largest = np.argsort(-of_tap, axis=2, kind="stable")[:, :, : budget(of_tap.shape[2], self.rate)]
        np.put_along_axis(window, largest, True, axis=2)
        stays = select(np.where(window, of_tap, 0).sum(axis=2), self.kernels, "filter")
        return (window & stays[:, :, None]).reshape(scores.shape)

    @classmethod
    def detect(cls, weight: np.ndarray, groups: int = 1) -> Self | str:
        taps, connections = _most(weight)
        _, all_connections, all_taps = _connections(weight).shape
        if taps == 0:
            return "every weight is zero"
        return (
            cls(all_taps / taps, all_connections / connections)
            if taps < all_taps
            else f"some connections use all {taps} taps"
        )

    def pack(self, weight: np.ndarray, groups: int = 1) -> Packed:
        _, all_connections, all_taps = _connections(weight).shape
        for most, total, rate, where, what in zip(
            _most(weight),
            (all_taps, all_connections),
            (self.rate, self.kernels),
            ("connection", "filter"),
            ("weights", "connections"),
            strict=True,
        ):
            if most > budget(total, rate):
                raise PccError(
                    f"a {where} has {most} {what} that are not zero: more than the {budget(total, rate)} of {total} "
                    f"that a rate of {rate:g} leaves"
                )
        return pack_nonzeros(weight)

    @staticmethod
    def unpack(packed: Packed) -> np.ndarray:
        return unpack_nonzeros(packed)


def _connections(weight: np.ndarray) -> np.ndarray:
    """(filters, connections of a filter, taps)."""
    return weight.reshape(*weight.shape[:2], -1)


def _most(weight: np.ndarray) -> tuple[int, int]:
    """The most taps that a connection uses, and the most connections that a filter uses."""
    of_connection = np.count_nonzero(_connections(weight), axis=2)
    return int(of_connection.max()), int(np.count_nonzero(of_connection, axis=1).max())
