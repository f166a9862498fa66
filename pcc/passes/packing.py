"""A layer's weight in a format."""

from dataclasses import replace
from typing import Any

import numpy as np
from torch.fx import Node

from pcc.ir.annotations import StoredOrder, annotation
from pcc.ir.graph import arguments, constant
from pcc.sparsity.formats import WeightFormat


def packed_weight(layer: Node, format: WeightFormat, weight: np.ndarray | None = None) -> Any:
    """The weight of a ``pcc::conv2d`` or ``pcc::linear`` as the format stores it, values of the weight's type, filters
    in the order `reorder-kernels` found; or why its zeros do not fit, as a text. ``weight`` stands in for the layer's
    own, of the same shape and type."""
    args, stored = arguments(layer), annotation(layer, StoredOrder)
    weight = constant(args["weight"]).numpy() if weight is None else weight
    packed = format.pack(
        weight.astype(np.float32), args.get("groups", 1), None if stored is None else np.array(stored.order)
    )
    if isinstance(packed, str) or weight.dtype == np.float32:
        return packed
    floats = {name: array for name in format.arrays if (array := getattr(packed, name)).dtype == np.float32}
    return replace(packed, **{name: array.astype(weight.dtype) for name, array in floats.items()})
