"""What a compressed model costs, layer by layer: weights kept, bytes of values and of indices, multiply-accumulates.

Bytes are counted, not found on disk: what the arrays of a layer's structure take (`Structure.pack`). The checkpoint
holds every weight as fp32, and a package what its kernels read.

Counted are the weights of convolutions and linear layers, as papers count them; biases and batch norms, which are
folded, are not. A layer is counted in the structures that the recipe gave it (the last one of zeros and the last one of
values), or, where its weight does not have them, in the smallest that its weight is found to have.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, computed_field
from torch import nn

from pcc.errors import PccError
from pcc.sparsity import structures
from pcc.sparsity.compose import Composition
from pcc.sparsity.detect import detect
from pcc.sparsity.filters import Channel, Filter
from pcc.sparsity.structure import Count, Structure
from pcc.training.evaluate import positions
from pcc.training.layers import array, bind, groups_of
from pcc.training.recipe import Stage, parse_structures


class Cost(BaseModel):
    """What a layer, or a whole model, costs, by count. Rates are those of the dense fp32 layer over these."""

    model_config = ConfigDict(frozen=True)

    weights: int
    kept: int
    """Weights that are not zero."""
    data_bytes: int
    """Of the structure's values: weights, code books, codes."""
    index_bytes: int
    """Of what says where they belong."""
    macs: int
    """Multiply-accumulates of the dense layer for one input."""
    kept_macs: int
    """Those with weights that are not zero."""

    @computed_field
    @property
    def weight_rate(self) -> float:
        return self.weights / max(1, self.kept)

    @computed_field
    @property
    def data_rate(self) -> float:
        """By `data_bytes`: the literature's weight data reduction."""
        return 4 * self.weights / max(1, self.data_bytes)

    @computed_field
    @property
    def data_and_index_rate(self) -> float:
        """By `data_bytes` and `index_bytes`."""
        return 4 * self.weights / max(1, self.data_bytes + self.index_bytes)

    @computed_field
    @property
    def mac_rate(self) -> float:
        return self.macs / max(1, self.kept_macs)


class LayerCost(Cost):
    """Of one layer."""

    name: str
    shape: tuple[int, ...]
    """Of the weight."""
    structure: str
    """As a recipe writes it; ``dense`` where there is nothing to gain."""


def total(layers: Sequence[LayerCost]) -> Cost:
    """Of all layers together."""
    return Cost(**{name: sum(getattr(layer, name) for layer in layers) for name in Cost.model_fields})


def layer_costs(model: nn.Module, stages: Sequence[Stage], input_shape: tuple[int, int, int]) -> list[LayerCost]:
    """Of every convolution and linear layer that an input (C, H, W) reaches, in order of definition."""
    structures = _given(model, stages)
    places = positions(model, input_shape)
    costs = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        weight, groups = array(module.weight), groups_of(module)
        text, count = _counted(weight, groups, structures.get(name, ()))
        macs, kept_macs = (places.get(name, 0) * number for number in (count.weights, count.kept))
        costs.append(
            LayerCost(name=name, shape=weight.shape, structure=text, macs=macs, kept_macs=kept_macs, **vars(count))
        )
    return costs


def _given(model: nn.Module, stages: Sequence[Stage]) -> dict[str, list[Structure]]:
    """What each layer may be counted in, best first: its last zeros and its last values together, then each alone."""
    zeros: dict[str, Structure] = {}
    values: dict[str, Structure] = {}
    for stage in stages:
        for layer in bind(model, parse_structures(stage.structures)):
            if layer.structure.values_only:
                values[layer.name] = layer.structure
            else:
                zeros[layer.name] = layer.structure
                if isinstance(layer.structure, Composition):
                    values.pop(layer.name, None)
    found: dict[str, list[Structure]] = {}
    for name in {**zeros, **values}:
        parts = [named[name] for named in (zeros, values) if name in named]
        found[name] = parts
        if len(parts) == 2:
            try:
                found[name] = [structures.compose(parts), *parts]
            except PccError:  # two that do not go together
                pass
    return found


def _counted(weight: np.ndarray, groups: int, structures: Sequence[Structure]) -> tuple[str, Count]:
    for structure in structures:
        try:
            count = structure.count(weight, groups)
        except PccError:  # the weight has not, or no longer, this structure
            continue
        if isinstance(structure, Filter) and (both := _with_unread_channels(structure, weight, groups)):
            structure, count = both, both.count(weight, groups)
        return str(structure), count
    dense = Count(weight.size, int(np.count_nonzero(weight)), 4 * weight.size, 0)
    if not structures and dense.kept == dense.weights:
        return "dense", dense
    found = detect(weight, groups)
    if isinstance(found, str):
        return "dense", dense
    return min(
        [("dense", dense), (str(found), found.count(weight, groups))],
        key=lambda counted: counted[1].data_bytes + counted[1].index_bytes,
    )


def _with_unread_channels(filters: Filter, weight: np.ndarray, groups: int) -> Composition | None:
    """Where filters were pruned, their readers may have lost channels too (`pcc.training.methods.unused_paths`); None
    where they have not."""
    channels = Channel.detect(
        *filters.thin(weight, filters.choose(np.square(weight, dtype=np.float64), groups), groups)
    )
    return None if isinstance(channels, str) else Composition((filters, channels))
