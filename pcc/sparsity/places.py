"""Where the kept ones of many places are, in few bits: Deep Compression's relative index (Han et al., 2016, section 2).

Each kept place is a code of b bits, its distance from the one before (the first from place -1). A distance that b bits
cannot hold is reached by steps of 2^b - 1 places; such a step is the code 0 and, unlike Deep Compression's filler, has
no weight. So codes of one bit are the plain bitmap: both forms are one. Of 1 to 16 bits the number that takes the
fewest bytes is used.
"""

import numpy as np

from pcc.errors import PccError
from pcc.sparsity import codes
from pcc.sparsity.structure import Packed


def pack_places(kept: np.ndarray) -> dict[str, np.ndarray]:
    """Where a flat bool mask is set: ``distances``, uint8 of packed codes, and ``bits`` of a code, uint8 (1,)."""
    distances = np.diff(np.flatnonzero(kept), prepend=-1)
    bits = _fewest(distances)
    longest = (1 << bits) - 1
    steps = (distances - 1) // longest
    ends = np.cumsum(steps + 1)
    sequence = np.zeros(int(ends[-1]) if len(ends) else 0, dtype=np.uint16)
    sequence[ends - 1] = distances - steps * longest
    return {"distances": codes.pack(sequence, bits), "bits": np.array([bits], dtype=np.uint8)}


def unpack_places(index: dict[str, np.ndarray], size: int) -> np.ndarray:
    """The flat mask again, bool (size,). Zeros that fill the last byte are steps past the last kept place and do no
    harm."""
    bits = int(index["bits"][0])
    sequence = codes.unpack(index["distances"], bits, index["distances"].size * 8 // bits).astype(np.int64)
    places = np.cumsum(np.where(sequence == 0, (1 << bits) - 1, sequence))[sequence != 0] - 1
    if len(places) and places[-1] >= size:
        raise PccError(f"damaged index of places: it reaches place {places[-1]} of {size}")
    kept = np.zeros(size, dtype=bool)
    kept[places] = True
    return kept


def pack_nonzeros(weight: np.ndarray) -> Packed:
    """The weights that are not zero, fp32, and where they are."""
    kept = weight != 0
    return Packed(weight.shape, {"weight": weight[kept].astype(np.float32)}, pack_places(kept.ravel()))


def unpack_nonzeros(packed: Packed) -> np.ndarray:
    """The weight again, fp32 of its shape."""
    weight = np.zeros(int(np.prod(packed.shape)), dtype=np.float32)
    weight[unpack_places(packed.index, weight.size)] = packed.data["weight"]
    return weight.reshape(packed.shape)


def _fewest(distances: np.ndarray) -> int:
    """The bits of a code, 1 to 16, for the smallest index; ties to fewer."""
    often = np.bincount(distances)
    used = np.flatnonzero(often)
    return min(
        range(1, codes.MOST_BITS + 1),
        key=lambda bits: -(-bits * int(often[used] @ (1 + (used - 1) // ((1 << bits) - 1))) // 8),
    )
