"""A layer's weight in a format."""

from typing import Any

import numpy as np
from torch.fx import Node

from pcc.ir.annotations import StoredOrder, annotation
from pcc.ir.graph import arguments, constant
from pcc.sparsity.formats import WeightFormat


def packed_weight(layer: Node, format: WeightFormat) -> Any:
    """The weight of a ``pcc::conv2d`` or ``pcc::linear`` as the format stores it, filters in the order `reorder-kernels` found; or why its zeros do not
    fit, as a text."""
    given, stored = arguments(layer), annotation(layer, StoredOrder)
    return format.pack(constant(given["weight"]).numpy(), given.get("groups", 1), None if stored is None else np.array(stored.order))
