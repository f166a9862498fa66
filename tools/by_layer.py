"""Structure and rate of each layer as `pcc compress` chooses them, where weights are what they cost."""

import torch
from torch import nn

from pcc.compression.database import make_database
from pcc.compression.network import Subject
from pcc.compression.options import LayerOptions, Option
from pcc.compression.plan import solve
from pcc.compression.planner import structures_of
from pcc.progress import quiet
from pcc.sparsity.kernels import Kernels
from pcc.target import host_target
from pcc.training.layers import Structures, bind


def by_layer(model: nn.Module, alike: Structures, batches: list[torch.Tensor]) -> Structures:
    """Of the layers that ``alike`` cuts, the structures of least loss that leave as many weights as it does.

    Whole channels are no choice: with them filters of another layer go. ``batches`` are samples, (N, C, H, W) each.
    """
    channels, height, width = batches[0].shape[1:]
    subject = Subject("network", type(model).__name__, model, (channels, height, width))
    layers = {layer.name: layer for layer in bind(model, alike)}
    database = make_database(subject, batches, host_target(), smaller=True, watch=quiet)

    def weights(layer: LayerOptions, option: Option, left: float) -> float:
        return left * layers[layer.name].weight.numel() * option.macs / layer.dense.macs

    cut = {
        name: layer.model_copy(update={"options": tuple(each for each in layer.options if not each.feeders)})
        for name, layer in database.items()
        if name in layers
    }
    kept = sum(int(layer.project(layer.weight).count_nonzero()) for layer in layers.values())
    return {
        **dict.fromkeys(layers, Kernels()),
        **structures_of(solve(cut, weights, kept)),
    }
