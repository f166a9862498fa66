"""What structures of values share: a scale that is fitted to a weight, and codes for the weights that are not zero.

Values follow pruning (Ye et al., 2018, arXiv 1811.01907: prune first, quantise the survivors), so a weight that is
exactly zero stays zero, but for plain binary weights. Levels and centroids give every other weight a value that is not
zero; where zero is a level of its own (ternary, conductances) small weights go there. `Values.nearest` with a scale
held fixed is the step that ADMM and joint projections need; `Values.project` fits the scale first.
"""

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from pcc.sparsity import codes
from pcc.sparsity.places import pack_places, unpack_places
from pcc.sparsity.structure import Packed, Structure

_SAMPLE = 4096
"""Weights looked at before all of them are sorted."""


class Values(Structure):
    """A structure whose values all follow from a weight and one small array, its scale."""

    values_only: ClassVar[bool] = True

    @abstractmethod
    def scale(self, weight: np.ndarray) -> np.ndarray:
        """The scale that brings the values closest to a weight, fp32; of a weight that has the structure, the scale it
        was made with (or an equal one)."""

    @abstractmethod
    def nearest(self, weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """The nearest weight with the values of this scale, fp32; ties go to the value of smaller magnitude."""

    def project(self, weight: np.ndarray, groups: int = 1) -> np.ndarray:
        return self.nearest(weight, self.scale(weight))


def distinct(values: np.ndarray, most: int) -> np.ndarray | None:
    """The different values of an array that are not zero, ascending, or None where there are more than ``most`` (a
    sample tells in most cases)."""
    flat = values.ravel()
    if len(flat) > _SAMPLE and distinct(flat[:_SAMPLE], most) is None:
        return None
    found = np.unique(flat[flat != 0])
    return found if len(found) <= most else None


def pack_values(weight: np.ndarray, used: np.ndarray, bits: int, scale: np.ndarray) -> Packed:
    """Codes ``used`` of ``bits`` bits for the weights that are not zero, in row-major order, and the places of these if
    some weight is zero."""
    kept = weight.ravel() != 0
    data = {
        "bits": np.array([bits], dtype=np.uint8),
        "scale": scale.astype(np.float32),
        "codes": codes.pack(used, bits),
    }
    return Packed(weight.shape, data, {} if kept.all() else pack_places(kept))


def unpack_codes(packed: Packed) -> tuple[np.ndarray, np.ndarray]:
    """(mask of the weights that are not zero, flat; their codes)."""
    size = int(np.prod(packed.shape))
    kept = unpack_places(packed.index, size) if packed.index else np.ones(size, dtype=bool)
    return kept, codes.unpack(packed.data["codes"], int(packed.data["bits"][0]), int(kept.sum()))


def spread(packed: Packed, kept: np.ndarray, values: np.ndarray | float) -> np.ndarray:
    """The weight with ``values`` where the mask is set."""
    weight = np.zeros(len(kept), dtype=np.float32)
    weight[kept] = values
    return weight.reshape(packed.shape)
