"""TETRIS: blocks of connections stay or go whole, after filters and channels were put in an order that suits (Ji et
al., NeurIPS 2018).

The weight is a matrix of connections, filters down and channels across, for each convolution group; a linear layer is
one of 1x1 connections. Orders are found by `pcc.sparsity.reorder`; in them the blocks that stay are dense for the
kernel. The paper ranks blocks by L1 norm; here it is the squared norm, so that the search lowers the very distance that
a projection is measured by.
"""

from dataclasses import dataclass, field, replace
from math import gcd
from typing import ClassVar, Self

import numpy as np

from pcc.errors import PccError
from pcc.sparsity.budget import budget, largest
from pcc.sparsity.places import pack_places, unpack_places
from pcc.sparsity.reorder import Orders, block_sums, by_likeness, by_support, classes, search
from pcc.sparsity.structure import Packed
from pcc.sparsity.zeros import Zeros


@dataclass(frozen=True)
class Tetris(Zeros):
    """Of the blocks of ``block`` = (filters, channels), counted over all groups and with those at the edges that are
    smaller, one in ``rate`` stays.

    ``filters`` (O,) and ``channels`` (I,) fix the orders: which one sits in each slot, numbered over all groups and
    staying inside them. What is not fixed is searched anew for each weight; `arranged` fixes what it finds.
    """

    name: ClassVar[str] = "tetris"

    rate: float
    block: tuple[int, int] = (16, 16)
    filters: tuple[int, ...] | None = field(default=None, repr=False)
    channels: tuple[int, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        budget(1, self.rate)  # refuses rates below 1
        if len(self.block) != 2 or min(self.block) < 1:
            raise PccError(f"a block of {self.block} is not (filters, channels) of 1 or more each")

    def keep(self, scores: np.ndarray, groups: int = 1) -> np.ndarray:
        """The best blocks for orders that are fixed. Where orders are searched there may be better ones; scores that
        have blocks keep them.

        So a projection is the nearest only for fixed orders. It is idempotent; where orders are searched, only as long
        as few connections inside of blocks are zero by accident (one in ten, and none at all where blocks do not divide
        the layer), because the blocks have to be found again from the zeros.
        """
        connections = _connections(scores, groups)
        orders = self._orders(connections)
        mask = np.zeros(connections.size, dtype=bool)
        mask[_cells(self._best(connections, orders), self.block, orders)] = True
        return np.broadcast_to(mask.reshape(*scores.shape[:2], *[1] * (scores.ndim - 2)), scores.shape)

    def orders(self, weight: np.ndarray, groups: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The orders that `project` uses, int64: (filters (O,), channels (I,)). ``weight[filters][:, channels]`` is in
        blocks (of a layer without groups)."""
        orders = self._orders(_connections(np.square(weight, dtype=np.float64), groups))
        return _over_groups(orders.rows), _over_groups(orders.columns)

    def arranged(self, weight: np.ndarray, groups: int = 1) -> Self:
        """The structure with the orders of this weight, so that training does not change them and projections are
        quick."""
        filters, channels = self.orders(weight, groups)
        return replace(self, filters=tuple(filters.tolist()), channels=tuple(channels.tolist()))

    @classmethod
    def detect(cls, weight: np.ndarray, groups: int = 1) -> Self | str:
        """Blocks as large as filters with the same channels, and channels with the same filters, come in."""
        used = _connections(weight != 0, groups) > 0
        if used.all():
            return "no connection is all zero"
        if not used.any():
            return "every weight is zero"
        rows = gcd(*(int(size) for side in used for size in np.bincount(classes(side))))
        columns = gcd(*(int(size) for side in used for size in np.bincount(classes(side.T))))
        if rows == columns == 1:
            return "no filters have the same channels and no channels the same filters"
        kept = block_sums(by_support(used, (rows, columns)).apply(used.astype(np.float64)), (rows, columns)) > 0
        return cls(kept.size / int(kept.sum()), (rows, columns))

    def pack(self, weight: np.ndarray, groups: int = 1) -> Packed:
        """The orders, which blocks there are, and their weights block by block (filters, then channels, then taps),
        zeros included."""
        connections = _connections(np.square(weight, dtype=np.float64), groups)
        orders = self._orders(connections)
        blocks = _occupied(connections, orders, self.block)
        if int(blocks.sum()) > budget(blocks.size, self.rate):
            raise PccError(
                f"{int(blocks.sum())} of {blocks.size} blocks of {self.block[0]} x {self.block[1]} are not zero: more "
                f"than one in {self.rate:g}"
            )
        index = {
            "filters": _small(_over_groups(orders.rows)),
            "channels": _small(_over_groups(orders.columns)),
            "block": _small(np.array(self.block)),
        }
        values = weight.reshape(connections.size, -1)[_cells(blocks, self.block, orders)]
        return Packed(
            weight.shape,
            {"weight": values.astype(np.float32) + np.float32(0)},
            {**index, **pack_places(blocks.ravel())},
        )

    @staticmethod
    def unpack(packed: Packed) -> np.ndarray:
        outputs, inputs = packed.shape[:2]
        groups = len(packed.index["channels"]) // inputs
        orders = Orders(_in_groups(packed.index["filters"], groups), _in_groups(packed.index["channels"], groups))
        rows, columns = (int(size) for size in packed.index["block"])
        shape = (groups, -(-outputs // groups // rows), -(-inputs // columns))
        blocks = unpack_places(packed.index, int(np.prod(shape))).reshape(shape)
        connections = np.zeros((outputs * inputs, int(np.prod(packed.shape[2:]))), dtype=np.float32)
        connections[_cells(blocks, (rows, columns), orders)] = packed.data["weight"]
        return connections.reshape(packed.shape)

    def _best(self, connections: np.ndarray, orders: Orders) -> np.ndarray:
        """The best blocks, bool (groups, blocks down, blocks across)."""
        sums = block_sums(orders.apply(connections), self.block)
        return largest(sums, budget(sums.size, self.rate))

    def _orders(self, connections: np.ndarray) -> Orders:
        """Fixed orders, else those that lose nothing, else the best of a few searches: from the order as it is, from
        norms, from likeness."""
        used = connections != 0
        makers = [lambda: Orders.plain(*connections.shape)]
        if not used.all():
            makers += [lambda: by_support(used, self.block), lambda: by_likeness(used.astype(np.float64), self.block)]
        starts: list[Orders] = []
        kept = 0
        for make in makers:
            starts.append(self._fix(make()))
            blocks = _occupied(connections, starts[-1], self.block)
            kept = budget(blocks.size, self.rate)
            if int(blocks.sum()) <= kept or (self.filters is not None and self.channels is not None):
                return starts[-1]
        starts += [self._fix(_by_norm(connections)), self._fix(by_likeness(np.abs(connections), self.block))]
        found = [
            search(connections, self.block, kept, start, rows=self.filters is None, columns=self.channels is None)
            for start in starts
        ]
        return max(
            found,
            key=lambda orders: float(
                block_sums(orders.apply(connections), self.block)[self._best(connections, orders)].sum()
            ),
        )

    def _fix(self, orders: Orders) -> Orders:
        """Orders with the fixed ones in place of those searched."""
        groups = len(orders.rows)
        return Orders(
            orders.rows if self.filters is None else _checked(self.filters, orders.rows, groups, "filters"),
            orders.columns if self.channels is None else _checked(self.channels, orders.columns, groups, "channels"),
        )


def _connections(scores: np.ndarray, groups: int) -> np.ndarray:
    """Scores of connections, float64 (groups, O / groups, I / groups), from scores of weights."""
    return scores.reshape(groups, len(scores) // groups, scores.shape[1], -1).sum(axis=3, dtype=np.float64)


def _occupied(connections: np.ndarray, orders: Orders, block: tuple[int, int]) -> np.ndarray:
    """The blocks with a connection that is not zero."""
    return block_sums(orders.apply((connections != 0).astype(np.float64)), block) > 0


def _by_norm(connections: np.ndarray) -> Orders:
    return Orders(
        np.argsort(-connections.sum(axis=2), axis=1, kind="stable"),
        np.argsort(-connections.sum(axis=1), axis=1, kind="stable"),
    )


def _cells(blocks: np.ndarray, block: tuple[int, int], orders: Orders) -> np.ndarray:
    """The connections of the chosen blocks, as flat places in (O, I / groups): block by block, row by row inside
    each."""
    groups, rows = orders.rows.shape
    columns = orders.columns.shape[1]
    filters = _over_groups(orders.rows).reshape(groups, rows, 1)
    places = filters * columns + orders.columns[:, None, :]
    _, down, across = blocks.shape
    of_group = np.arange(groups)[:, None, None] * down
    number = (of_group + np.arange(rows)[:, None] // block[0]) * across + np.arange(columns) // block[1]
    chosen = blocks.ravel()[number]
    return places[chosen][np.argsort(number[chosen], kind="stable")]


def _over_groups(order: np.ndarray) -> np.ndarray:
    """Orders inside groups (groups, n) as one order of all, int64 (groups * n,)."""
    return (order + np.arange(len(order))[:, None] * order.shape[1]).ravel()


def _in_groups(order: np.ndarray, groups: int) -> np.ndarray:
    """The other way."""
    inside = order.astype(np.int64).reshape(groups, -1)
    return inside - np.arange(groups)[:, None] * inside.shape[1]


def _checked(order: tuple[int, ...], found: np.ndarray, groups: int, what: str) -> np.ndarray:
    if len(order) != found.size:
        raise PccError(f"an order of {len(order)} {what} was fixed for a layer that has {found.size}")
    inside = _in_groups(np.array(order), groups)
    if (np.sort(inside, axis=1) != np.arange(inside.shape[1])).any():
        raise PccError(
            f"the fixed order of {what} does not name each of {inside.shape[1]} "
            f"once{' in every group' if groups > 1 else ''}"
        )
    return inside


def _small(numbers: np.ndarray) -> np.ndarray:
    return numbers.astype(np.uint16 if numbers.max() < 2**16 else np.uint32)
