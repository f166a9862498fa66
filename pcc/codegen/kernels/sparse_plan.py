"""How a sparse convolution is computed, and what it costs: tiles, blocks, and the cost model that picks them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pcc.sparsity.fkw import FKW


@dataclass(frozen=True)
class SparsePlan:
    """The form of the kernel, its tile, and how many filters an item takes."""

    form: Literal["scatter", "gather"]
    size: int
    """Positions of a tile."""
    block: int
    """Filters (scatter) or filter groups (gather) of an item."""
    most_taps: int
    """Taps of a kernel that are taken at a time."""
    room: int = 0
    """Filters whose accumulators a scatter kernel has room for; ``block`` at most."""


def plans(fkw: FKW, positions: int, lanes: int) -> Iterator[SparsePlan]:
    filters, taps = fkw.shape[0], fkw.patterns.shape[1]
    most = min(taps, 9)
    for vectors in (4, 3, 2, 1):
        if vectors > 1 and vectors * lanes >= positions + lanes:
            continue
        room = {16: 24, 8: 16, 4: 16}[lanes] * 256 // (vectors * lanes) // 8 * 8
        blocks = -(-filters // room)
        yield SparsePlan("scatter", vectors * lanes, -(-filters // blocks), most, room)


def choose_plan(fkw: FKW, positions: int, lanes: int) -> tuple[SparsePlan, float]:
    return next(plans(fkw, positions, lanes)), 0.0
