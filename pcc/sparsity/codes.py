"""Codes of a few bits, packed into bytes without gaps: the first code takes the highest bits of the first byte."""

import numpy as np

MOST_BITS = 16


def bits_for(values: int) -> int:
    """Bits of a code that tells ``values`` values apart; none for one value."""
    return max(0, values - 1).bit_length()


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Flat codes 0..2^bits - 1 as uint8 (ceil(n * bits / 8),); ``bits`` is 0 to 16."""
    width, word = _word(bits)
    digits = np.unpackbits(codes.astype(word).view(np.uint8).reshape(-1, width // 8), axis=1)
    return np.packbits(digits[:, width - bits :])


def unpack(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The first ``count`` codes, uint8 (count,), or uint16 where 8 bits do not hold them."""
    width, word = _word(bits)
    digits = np.zeros((count, width), dtype=np.uint8)
    digits[:, width - bits :] = np.unpackbits(packed, count=count * bits).reshape(count, bits)
    return np.packbits(digits, axis=1).view(word)[:, 0].astype(word.newbyteorder("="))


def _word(bits: int) -> tuple[int, np.dtype]:
    """The width in bits of the word, highest byte first, that holds a code, and its type."""
    return (8, np.dtype(np.uint8)) if bits <= 8 else (16, np.dtype(">u2"))
