"""Levels with one scale: 2^n equally spaced ones, or powers of two (Ye et al., 2018 and 2019; Leng et al., 2018).

A set of n bits has 2^(n-1) magnitudes, each with both signs. Zero is not one of them: weights that are exactly zero
were pruned, stay zero and need no code. Scales are cut so that every level is an exact fp32 number. A weight that has
the structure therefore tells its scale exactly, comes back from the projection as it is, and unpacks bit for bit.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from pcc.errors import PccError
from pcc.sparsity.scale import best_scale
from pcc.sparsity.structure import Packed
from pcc.sparsity.values import Values, distinct, pack_values, spread, unpack_codes

_SIGNIFICAND = 24
"""Bits of an fp32 significand."""
_TINY = float(np.finfo(np.float32).tiny)
"""No level is smaller: below it fp32 loses bits."""


def exact_scale(scale: float, bits: int, first: float = 1.0) -> float:
    """A scale so near that no distance tells the difference, whose multiples below 2^bits are exact, and whose multiple
    ``first`` is no subnormal number."""
    fraction, exponent = np.frexp(max(scale, _TINY / first))
    cut = 2.0 ** (_SIGNIFICAND - bits)
    return float(np.ldexp(np.rint(fraction * cut) / cut, exponent))


@dataclass(frozen=True)
class _Levels(Values):
    """Signed multiples of a scale; the two kinds differ in their multipliers."""

    most_bits: ClassVar[int]

    bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= self.most_bits:
            raise PccError(f"{self.name} of {self.bits} bits: choose 1 to {self.most_bits}")

    @classmethod
    @abstractmethod
    def multipliers(cls, bits: int) -> np.ndarray:
        """The magnitudes of the levels at a scale of 1, float64 (2^(bits-1),) ascending."""

    @classmethod
    @abstractmethod
    def explain(cls, magnitudes: np.ndarray) -> tuple[float, int] | None:
        """(scale, bits) of the smallest set that holds these different magnitudes (ascending), or None if none does."""

    def scale(self, weight: np.ndarray) -> np.ndarray:
        """q, fp32 (). The distance at q is the least one for all q or at most 0.2 % above it (`pcc.sparsity.scale`); 0
        for a weight of zeros."""
        fitted = self._own_scale(weight)
        if fitted is not None:
            return np.array(fitted, dtype=np.float32)
        multipliers = self.multipliers(self.bits)
        return np.array(
            exact_scale(best_scale(np.abs(weight[weight != 0]), multipliers), self.bits, multipliers[0]),
            dtype=np.float32,
        )

    def nearest(self, weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
        multipliers = self.multipliers(self.bits)
        levels = (multipliers * float(scale)).astype(np.float32)
        return np.where(
            weight != 0, np.copysign(levels[self._indices(weight, multipliers * float(scale))], weight), np.float32(0)
        )

    @classmethod
    def detect(cls, weight: np.ndarray, groups: int = 1) -> Self | str:
        magnitudes = distinct(np.abs(weight), 2 ** (cls.most_bits - 1))
        if magnitudes is None:
            return f"more than {2 ** (cls.most_bits - 1)} different magnitudes"
        if not len(magnitudes):
            return "every weight is zero"
        found = cls.explain(magnitudes)
        return (
            cls(found[1])
            if found
            else f"the {len(magnitudes)} different magnitudes are no {cls.name} of up to {cls.most_bits} bits"
        )

    def pack(self, weight: np.ndarray, groups: int = 1) -> Packed:
        """A sign and the number of a level for each weight that is not zero, and the scale."""
        fitted = self._own_scale(weight)
        if fitted is None:
            raise PccError(f"the weights are not {self.name} of {self.bits} bits: project them first")
        values = weight[weight != 0]
        used = (values < 0) * 2 ** (self.bits - 1) + self._indices(values, self.multipliers(self.bits) * fitted)
        return pack_values(weight, used, self.bits, np.array([fitted]))

    @classmethod
    def unpack(cls, packed: Packed) -> np.ndarray:  # pyright: ignore[reportIncompatibleMethodOverride]  # called alike
        kept, used = unpack_codes(packed)
        levels = cls.multipliers(int(packed.data["bits"][0])) * float(packed.data["scale"][0])
        return spread(packed, kept, np.concatenate([levels, -levels])[used])

    def _own_scale(self, weight: np.ndarray) -> float | None:
        """The scale of a weight that has the structure (0 where it is all zero), None if it has not."""
        magnitudes = distinct(np.abs(weight), 2 ** (self.bits - 1))
        if magnitudes is None or not len(magnitudes):
            return None if magnitudes is None else 0.0
        found = self.explain(magnitudes)
        return found[0] if found and found[1] <= self.bits else None

    def _indices(self, weight: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """Which of the ascending levels each magnitude is nearest to."""
        return np.searchsorted(((levels[1:] + levels[:-1]) / 2).astype(np.float32), np.abs(weight))


@dataclass(frozen=True)
class UniformLevels(_Levels):
    """{-2^(n-1) q, ..., -q, q, ..., 2^(n-1) q}: equally spaced, as in Ye et al., 2019."""

    name: ClassVar[str] = "levels"
    most_bits: ClassVar[int] = 8

    @classmethod
    def multipliers(cls, bits: int) -> np.ndarray:
        return np.arange(1.0, 2 ** (bits - 1) + 1)

    @classmethod
    def explain(cls, magnitudes: np.ndarray) -> tuple[float, int] | None:
        """The largest possible scale is the greatest common divisor."""
        most = 2 ** (cls.most_bits - 1)
        if magnitudes[-1] > most * magnitudes[0].astype(np.float64):
            return None
        unit = int(np.frexp(magnitudes[0])[1]) - _SIGNIFICAND
        counts = np.ldexp(magnitudes.astype(np.float64), -unit).astype(np.int64)
        divisor = int(np.gcd.reduce(counts))
        top = int(counts[-1]) // divisor
        return (float(np.ldexp(float(divisor), unit)), (top - 1).bit_length() + 1) if top <= most else None


@dataclass(frozen=True)
class PowerOfTwo(_Levels):
    """{+-q, +-q/2, +-q/4, ...} down to q / 2^(2^(n-1) - 1): multiplications are shifts."""

    name: ClassVar[str] = "power-of-two"
    most_bits: ClassVar[int] = 6

    @classmethod
    def multipliers(cls, bits: int) -> np.ndarray:
        return 2.0 ** np.arange(1 - 2 ** (bits - 1), 1)

    @classmethod
    def explain(cls, magnitudes: np.ndarray) -> tuple[float, int] | None:
        """All magnitudes have the same significand."""
        fractions, exponents = np.frexp(magnitudes)
        steps = int(exponents[-1] - exponents[0])
        if (fractions != fractions[0]).any() or steps >= 2 ** (cls.most_bits - 1):
            return None
        return float(magnitudes[-1]), steps.bit_length() + 1


@dataclass(frozen=True)
class Ternary(Values):
    """{-q, 0, q}: here zero is a level, and which weights go there is part of the projection (Li and Liu, 2016; the
    exact optimum, not their threshold)."""

    name: ClassVar[str] = "ternary"

    def scale(self, weight: np.ndarray) -> np.ndarray:
        """q, fp32 (): keeping the t largest magnitudes, of sum s, takes s^2 / t off the squared error, so the best of
        all t is found by sorting."""
        descending = np.sort(np.abs(weight).ravel())[::-1]
        sums = np.cumsum(descending, dtype=np.float64)
        kept = int((np.square(sums) / np.arange(1, len(sums) + 1)).argmax()) + 1
        return np.asarray(sums[kept - 1] / kept, dtype=np.float32)

    def nearest(self, weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return np.where(np.abs(weight) > scale / 2, np.copysign(scale, weight), np.float32(0))

    @classmethod
    def detect(cls, weight: np.ndarray, groups: int = 1) -> Self | str:
        magnitudes = distinct(np.abs(weight), 1)
        if magnitudes is None:
            return "more than one magnitude"
        return cls() if len(magnitudes) else "every weight is zero"

    def pack(self, weight: np.ndarray, groups: int = 1) -> Packed:
        """A sign for each weight that is not zero, and the scale; the zeros are in the index, which takes at most a bit
        a weight."""
        magnitudes = distinct(np.abs(weight), 1)
        if magnitudes is None:
            raise PccError("the weights are not ternary: project them first")
        return pack_values(weight, weight[weight != 0] < 0, 1, magnitudes)

    @staticmethod
    def unpack(packed: Packed) -> np.ndarray:
        kept, negative = unpack_codes(packed)
        return spread(packed, kept, np.where(negative, -1, 1) * packed.data["scale"].sum())


PER = ("layer", "filter")


@dataclass(frozen=True)
class Binary(Values):
    """Every weight is +a or -a with a = mean |w|, of the layer or of its filter (Rastegari et al., 2016: the exact
    optimum).

    Nothing is zero: zeros become +a, unless ``keep_zeros``, which leaves them out of the mean as well (for layers that
    were pruned before).
    """

    name: ClassVar[str] = "binary"

    per: str = "layer"
    keep_zeros: bool = False

    def __post_init__(self) -> None:
        if self.per not in PER:
            raise PccError(f"binary weights have a scale per '{self.per}': choose one of {', '.join(PER)}")

    def scale(self, weight: np.ndarray) -> np.ndarray:
        """a, fp32: () for the layer, (O, 1, ...) for each filter."""
        over = None if self.per == "layer" else tuple(range(1, weight.ndim))
        members = (
            np.count_nonzero(weight, axis=over, keepdims=self.per == "filter")
            if self.keep_zeros
            else weight.size // self._scales(weight.shape)
        )
        sums = np.abs(weight).sum(axis=over, keepdims=self.per == "filter", dtype=np.float64)
        return np.asarray(sums / np.maximum(members, 1), dtype=np.float32)

    def nearest(self, weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
        signed = np.where(weight < 0, -scale, scale)
        return np.where(weight != 0, signed, np.float32(0)) if self.keep_zeros else signed

    @classmethod
    def detect(cls, weight: np.ndarray, groups: int = 1) -> Self | str:
        if not weight.any():
            return "every weight is zero"
        zeros = bool((weight == 0).any())
        for per in PER:
            if cls(per, zeros)._holds(weight):
                return cls(per, zeros)
        return "more than one magnitude in a filter"

    def pack(self, weight: np.ndarray, groups: int = 1) -> Packed:
        """A sign for each weight that is not zero, and the scales."""
        if not self._holds(weight):
            raise PccError(f"the weights are not binary with a scale for each {self.per}: project them first")
        return pack_values(weight, weight[weight != 0] < 0, 1, self.scale(weight).ravel())

    @staticmethod
    def unpack(packed: Packed) -> np.ndarray:
        kept, negative = unpack_codes(packed)
        scales = packed.data["scale"]
        of_weight = np.broadcast_to(scales.reshape(-1, *[1] * (len(packed.shape) - 1)), packed.shape).ravel()[kept]
        return spread(packed, kept, np.where(negative, -of_weight, of_weight))

    def _holds(self, weight: np.ndarray) -> bool:
        return np.array_equal(self.project(weight), weight)

    def _scales(self, shape: tuple[int, ...]) -> int:
        return 1 if self.per == "layer" else shape[0]
