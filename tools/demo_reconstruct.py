"""The demo's pruned ImageNet network: ResNet-50, cut at once and fitted layer by layer, without labels and without
training.

Few layers and samples, so that it takes a minute or two: the last stage, whose layers have up to 4,608 inputs, stays
dense. `tools.reconstruct` has what whole networks and more samples give.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from pcc.models import create, entry
from pcc.sparsity.kernels import Kernels
from pcc.training.layers import Structures
from pcc.training.reconstruct import reconstruct
from tools.unlabelled import crops, other_photos

NETWORK = "resnet50"
STRUCTURE = "8 patterns, connectivity 2x in 42 layers"
STRUCTURES: Structures = {"@first": None, "layer4.*": None, "@conv3x3": Kernels(8, 2.0), "@conv": Kernels(rate=2.0)}
SAMPLES = 32
COLUMNS = 4096
"""Output positions that a layer is fitted on."""


def fit_pruned(path: Path) -> Path:
    """Writes the checkpoint of the pruned network to ``path``. The samples are of photos that the demo does not
    count."""
    network = entry(NETWORK)
    samples = np.concatenate(
        [network.preprocessing.apply(crop) for crop in crops(other_photos().to_fit, SAMPLES, seed=0)]
    )
    module = create(NETWORK)
    reconstruct(module, STRUCTURES, [torch.from_numpy(samples)], columns=COLUMNS)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(module.state_dict(), path)
    return path
