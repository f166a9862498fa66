"""A layer's weight in a format."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from pcc.dtype import dtype_of
from pcc.ir.annotations import StoredOrder, annotation
from pcc.ir.graph import arguments, constant
from pcc.sparsity.formats import WeightFormat


def packed_weight(layer: Node, format: WeightFormat) -> Any:
    """The weight of a ``pcc::conv2d`` or ``pcc::linear`` as the format stores it, values of the weight's type, filters in the order `reorder-kernels` found;
    or why its zeros do not fit, as a text."""
    given, stored = arguments(layer), annotation(layer, StoredOrder)
    weight = constant(given["weight"])
    packed = format.pack(weight.float().numpy(), given.get("groups", 1), None if stored is None else np.array(stored.order))
    if isinstance(packed, str) or weight.dtype == torch.float32:
        return packed
    floats = {name: array for name in format.arrays if (array := getattr(packed, name)).dtype == np.float32}
    return replace(packed, **{name: array.astype(dtype_of(weight.dtype).numpy) for name, array in floats.items()})
