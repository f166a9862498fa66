"""FKW as a weight format: for every weight in whose zeros patterns, missing connections or both are found."""

import numpy as np

from pcc.sparsity.fkw import FKW, pack, unpack
from pcc.sparsity.formats import WeightFormat
from pcc.sparsity.kernels import Kernels


def _pack(weight: np.ndarray, groups: int, order: np.ndarray | None) -> FKW | str:
    structure = Kernels.detect(weight, groups)
    if isinstance(structure, str):
        return structure
    return pack(
        weight,
        groups,
        structure.taps(weight),
        structure.share,
        structure.places(len(weight)) if order is None else order,
    )


FORMAT = WeightFormat("fkw", FKW, _pack, unpack, nonzeros=lambda packed: int(np.count_nonzero(packed.weight)))
