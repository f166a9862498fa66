"""FKW as a weight format: for every weight in whose zeros patterns, missing connections or both are found."""

import numpy as np

from pcc.sparsity.detect import detect_structure
from pcc.sparsity.fkw import FKW, pack, unpack
from pcc.sparsity.formats import WeightFormat


def _pack(weight: np.ndarray, groups: int, order: np.ndarray | None) -> FKW | str:
    structure = detect_structure(weight, groups)
    if isinstance(structure, str):
        return structure
    return pack(weight, groups, structure.patterns, structure.share, structure.order if order is None else order)


FORMAT = WeightFormat("fkw", FKW, _pack, unpack, nonzeros=lambda packed: int(np.count_nonzero(packed.weight)))
