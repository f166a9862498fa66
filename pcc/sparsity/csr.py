"""Compressed sparse rows: the kept weights of each output in the order of their inputs, and which inputs these are. For
zeros that follow no rule."""

from dataclasses import dataclass

import numpy as np

from pcc.sparsity.formats import WeightFormat

LEAST_ZEROS = 1 / 32
"""Of a weight that is packed: with fewer, even a bit for each weight that says whether it is kept takes more than
leaving it out saves."""


@dataclass(frozen=True)
class Csr:
    """A packed weight of N kept weights; a row is what one output keeps, whatever the shape of its part of the
    weight."""

    shape: tuple[int, ...]
    """(M, K) or (O, I/groups, kh, kw) of the dense weight."""
    groups: int
    offset: np.ndarray
    """int32 (M + 1,): where each row starts."""
    index: np.ndarray
    """int32 (N,): columns, ascending in a row."""
    weight: np.ndarray
    """fp32 (N,)."""

    @property
    def columns(self) -> int:
        return int(np.prod(self.shape[1:]))


def pack(weight: np.ndarray, groups: int = 1, order: np.ndarray | None = None) -> Csr | str:
    """The rows of a weight, as they stand whatever the order; or that there is too little to leave out. Negative zeros
    become zeros."""
    rows = weight.reshape(weight.shape[0], -1)
    kept = rows != 0
    zeros = rows.size - int(np.count_nonzero(kept))
    if zeros < rows.size * LEAST_ZEROS:
        return f"only {zeros} of {rows.size} weights are zero" if zeros else "no weight is zero"
    offset = np.zeros(len(rows) + 1, np.int32)
    offset[1:] = kept.sum(axis=1).cumsum()
    return Csr(weight.shape, groups, offset, np.nonzero(kept)[1].astype(np.int32), rows[kept].astype(np.float32))


def unpack(csr: Csr) -> np.ndarray:
    """The dense weight, of the type that ``weight`` has."""
    weight = np.zeros((csr.shape[0], csr.columns), csr.weight.dtype)
    weight[np.repeat(np.arange(csr.shape[0]), np.diff(csr.offset)), csr.index] = csr.weight
    return weight.reshape(csr.shape)


FORMAT = WeightFormat("csr", Csr, pack, unpack, nonzeros=lambda packed: len(packed.weight))
