"""A convolution's weight in a format."""

from typing import Any

import numpy as np
from torch.fx import Node

from pcc.ir.annotations import StoredOrder, annotation
from pcc.passes.pruning import convolution_weight, groups_of
from pcc.sparsity.formats import WeightFormat


def packed_weight(conv: Node, format: WeightFormat) -> Any:
    """The weight of a ``pcc::conv2d`` as the format stores it, filters in the order `reorder-kernels` found; or why its zeros do not fit, as a text."""
    stored = annotation(conv, StoredOrder)
    return format.pack(convolution_weight(conv), groups_of(conv), None if stored is None else np.array(stored.order))
