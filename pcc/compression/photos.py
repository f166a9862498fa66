"""Photos to fit on, and others to measure on."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pcc.errors import PccError
from pcc.evaluate import samples as files
from pcc.evaluate.samples import Batch, Samples
from pcc.models.preprocess import Preprocessing
from pcc.training.views import random_parts

FEWEST = 10
ENOUGH = 128
"""Photos to fit on; where there are fewer, parts of them are added."""
MOST_HELD_OUT = 200
HELD_OUT = 0.2
"""Of all photos, at most `MOST_HELD_OUT`."""


@dataclass(frozen=True)
class Photos:
    """Inputs of a network, fp32 (N, C, H, W)."""

    fitted: Tensor
    """In random order, each photo with its parts behind it, so that the halves of a batch
    (`pcc.compression.errors.layer_fits`) show different photos."""
    count: int
    """Of photos among those to fit on; the others are parts of them."""
    held_out: Samples

    def batches(self, size: int) -> list[Tensor]:
        return list(self.fitted.split(size))

    def held_out_batches(self, size: int) -> list[Tensor]:
        return [torch.from_numpy(x) for x, _ in self.held_out.batches(size)]


def open_photos(
    images: str | PathLike[str] | Tensor, input_shape: tuple[int, int, int], preprocessing: Preprocessing | None
) -> Samples:
    """Inputs of a network, or the photos of a folder or a list as it sees them; labels are not looked at. `PccError`
    for what does not fit."""
    if not isinstance(images, Tensor):
        path = Path(images)
        if not path.is_dir() and path.suffix != ".txt":
            raise PccError(f"images '{path}': give a folder of photos, or a list of them (FILE.txt)")
        return files.open_photos(str(path), input_shape, preprocessing)
    if images.dtype != torch.float32 or images.shape[1:] != input_shape:
        raise PccError(f"images are {images.dtype} {tuple(images.shape)}: the network takes fp32 {('N', *input_shape)}")
    values = images.detach().cpu().numpy()
    return Samples("images", len(values), lambda begin, end: (values[begin:end], None))


def split(samples: Samples, most: int) -> Photos:
    """Draws at most ``most`` photos to fit on, and a fifth of all, up to 200, to measure on. Where those to fit on are
    few, random parts of them are fitted on, too. `PccError` for too few."""
    if samples.count < FEWEST:
        raise PccError(f"{samples.name} has {samples.count} photos: {FEWEST} are the least, and a few hundred better")
    order = np.random.default_rng(0).permutation(samples.count)
    held = min(MOST_HELD_OUT, round(HELD_OUT * samples.count))
    apart = np.sort(order[:held])

    def read(begin: int, end: int) -> Batch:
        return _read(samples, apart[begin:end]), None

    held_out = Samples(f"{held} photos held out", held, read)
    fitted = torch.from_numpy(_read(samples, order[held : held + most]))  # as drawn: what is sorted goes by classes
    repeats = -(-min(most, ENOUGH) // len(fitted)) - 1
    random = torch.Generator().manual_seed(0)
    views = torch.stack([fitted, *(random_parts(fitted, random) for _ in range(repeats))], dim=1)
    return Photos(views.flatten(0, 1), len(fitted), held_out)


def _read(samples: Samples, indices: np.ndarray) -> np.ndarray:
    return np.concatenate([samples.read(int(index), int(index) + 1)[0] for index in indices])
