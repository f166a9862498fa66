"""`python -m tools.ship PRUNED DENSE`: makes what comes with pcc, ``pcc/models/shipped``, of the checkpoints of a vgg8
that was trained and then pruned.

The weights are packed with values in half precision, and the file notes what that network gets right, of all of
CIFAR-10's test photos and of the 200 that are shipped with it, and what its dense self gets right.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from pcc.errors import PccError
from pcc.files import write_atomically
from pcc.frontend.checkpoint import load_weights
from pcc.frontend.packed import PackedState, pack_state
from pcc.models import entry
from pcc.models.cifar_photos import OF_EACH, SHEET
from pcc.models.weights import SHIPPED, VGG8_CIFAR10
from pcc.sparsity.kernels import Kernels
from pcc.sparsity.structure import Count, Structure
from pcc.training.data import Data, open_data

NETWORK = "vgg8"
DATA = "cifar10"
BATCH = 500


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pruned", type=Path)
    parser.add_argument("dense", type=Path)
    parser.add_argument(
        "-o", "--output", type=Path, default=SHIPPED, help="the folder to write to (default: %(default)s)"
    )
    arguments = parser.parse_args()
    try:
        ship(arguments.pruned, arguments.dense, arguments.output)
    except PccError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def ship(pruned: Path, dense: Path, folder: Path) -> None:
    """Writes the photos and the packed network, and says what it is worth."""
    module = entry(NETWORK).factory().eval()
    load_weights(module, pruned)
    packed, cost = pack(module)

    data = open_data(DATA)
    labels = torch.cat([labels for _, labels in data.test_batches(BATCH)])
    chosen = first_of_each(labels.numpy(), OF_EACH)
    write_atomically(folder / SHEET.name, lambda path: sheet(data, chosen).save(path, format="PNG", optimize=True))

    trained = answers(module, data)
    module.load_state_dict(packed.unpack())
    shipped = answers(module, data)
    load_weights(module, dense)
    dense_right = int((answers(module, data) == labels).sum())

    right = shipped == labels
    notes = {
        "model": NETWORK,
        "data": DATA,
        "accuracy": int(right.sum()) / len(labels),
        "dense_accuracy": dense_right / len(labels),
        "photos_right": int(right[torch.from_numpy(chosen)].sum()),
    }
    written = folder / VGG8_CIFAR10.file
    write_atomically(written, packed.with_notes(notes).save)
    print(
        f"{written}: {written.stat().st_size:,} bytes; {folder / SHEET.name}: {(folder / SHEET.name).stat().st_size:,} "
        "bytes"
    )
    print(f"pruned convolutions: {cost.weights:,} weights, {cost.kept:,} kept, {cost.rate:.2f} times fewer")
    print(
        f"test photos right: {float((trained == labels).float().mean()):.2%} as trained, {notes['accuracy']:.2%} in "
        "half precision, ",
        end="",
    )
    print(
        f"{notes['dense_accuracy']:.2%} dense; {int((trained != shipped).sum())} of {len(labels)} answers change with "
        "half precision"
    )
    print(f"{notes['photos_right']} of the {len(chosen)} photos right")


def first_of_each(labels: np.ndarray, count: int) -> np.ndarray:
    """The places of the first ``count`` samples of each class, class by class."""
    return np.concatenate([np.flatnonzero(labels == label)[:count] for label in np.unique(labels)])


def sheet(data: Data, chosen: np.ndarray) -> Image.Image:
    """One row of test photos for each class."""
    preprocessing = entry(NETWORK).preprocessing
    inputs, _ = data.test_samples(torch.from_numpy(chosen))
    values = (
        inputs * torch.tensor(preprocessing.std)[:, None, None] + torch.tensor(preprocessing.mean)[:, None, None]
    ) / preprocessing.scale
    pixels = values.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    _, height, width, channels = pixels.shape
    rows = pixels.reshape(-1, OF_EACH, height, width, channels).swapaxes(1, 2)
    return Image.fromarray(rows.reshape(-1, OF_EACH * width, channels))


def pack(module: nn.Module) -> tuple[PackedState, Count]:
    """The module's state, convolutions that have patterns or lack connections packed, and what these cost."""
    structures: dict[str, Structure] = {}
    groups: dict[str, int] = {}
    cost = Count(0, 0, 0, 0)
    for name, layer in module.named_modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        weight = layer.weight.detach().numpy()
        found = Kernels.detect(weight, layer.groups)
        if isinstance(found, Kernels):
            structures[f"{name}.weight"], groups[f"{name}.weight"] = found, layer.groups
            cost += found.count(weight, layer.groups)
    if not structures:
        raise PccError(
            "the checkpoint has no convolution with patterns or missing connections: ship one that is pruned"
        )
    return pack_state(module.state_dict(), structures, groups, half=True), cost


@torch.no_grad()
def answers(module: nn.Module, data: Data) -> torch.Tensor:
    """The class that the network gives each test photo, int64 (N,)."""
    return torch.cat([module(inputs).argmax(dim=1) for inputs, _ in data.test_batches(BATCH)])


if __name__ == "__main__":
    sys.exit(main())
