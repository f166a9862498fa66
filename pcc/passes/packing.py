"""A convolution's weight as it ships when its zeros have structure."""

import numpy as np
from torch.fx import Node

from pcc.ir.annotations import StoredOrder, annotation
from pcc.passes.pruning import convolution_weight, groups_of
from pcc.sparsity.detect import detect_structure
from pcc.sparsity.fkw import FKW, pack


def packed_weight(conv: Node) -> FKW | str:
    """The weight of a ``pcc::conv2d`` in FKW form, filters in the order `reorder-kernels` found; or why its zeros have no such structure."""
    weight, groups = convolution_weight(conv), groups_of(conv)
    structure = detect_structure(weight, groups)
    if isinstance(structure, str):
        return structure
    stored = annotation(conv, StoredOrder)
    order = structure.order if stored is None else np.array(stored.order)
    return pack(weight, groups, structure.patterns, structure.group, order)
