"""Column (shape-wise) pruning: the same (input channel, row, column) is removed in all filters (StructADMM, Zhang et
al., 2018; first Wen et al., 2016).

Seen as a matrix product, filters are rows and the weight loses columns: im2col gathers only the columns that stay, and
the product is dense and smaller. The groups of a grouped convolution are products of their own, which keep equally many
columns of their own choice (`pcc.sparsity.slices`).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pcc.sparsity.slices import Slices
from pcc.sparsity.structure import Packed


@dataclass(frozen=True)
class Column(Slices):
    """One column in ``rate`` stays. What is left is a matrix (O, columns of a group)."""

    name: ClassVar[str] = "column"

    @staticmethod
    def split(weight: np.ndarray, groups: int) -> np.ndarray:
        """(groups, I/groups * kh * kw, O/groups)."""
        return weight.reshape(groups, len(weight) // groups, -1).swapaxes(1, 2)

    @staticmethod
    def join(slices: np.ndarray) -> np.ndarray:
        return slices.swapaxes(1, 2).reshape(-1, slices.shape[1])

    @staticmethod
    def unpack(packed: Packed) -> np.ndarray:
        return Column.restore(packed)
