"""Structures one after the other: coarse zeros, finer zeros in what they leave, then values for what is left of that.

Each part lives in the weight that the part before it packs: the rate of a fine part counts over the weights the coarse
part leaves, so rates multiply, as in hybrid pruning (Xu et al., 2018), where the thin network is pruned as a network of
its own. Every weight that the zeros let stay takes a value, unless it is exactly zero already. Exact means: no weight
that keeps as many weights that are not zero is nearer.

The projection of

* unstructured zeros, then levels, power-of-two, ternary, binary or conductance is exact, as far as the scale is
  (levels: 0.2 % of the distance, `pcc.sparsity.scale`): the value v >= 0 keeps v(2|w| - v) of a weight w, the best v
  keeps the more the larger |w| is, so the largest weights stay, whatever the scale;
* other zeros, then values is not exact: zeros for the scale and the scale for the zeros, in turn, while the distance
  falls; each step is exact (`Composition.nearest`), up to what the parts say of themselves;
* filters, channels or columns, then any of the above is not exact: the slices of largest norm, then the nearest in what
  they leave.

`Composition.nearest` is exact wherever the scale is known, for all zeros that take scores (`pcc.sparsity.zeros`):
keeping a weight w is worth w^2 - (w - v)^2 where v is its value, and the zeros with the largest sum of that are the
nearest (blocks after reordering, `pcc.sparsity.tetris`: for orders that are fixed).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from pcc.errors import PccError
from pcc.sparsity.conductance import Conductance
from pcc.sparsity.levels import Binary, PowerOfTwo, Ternary, UniformLevels
from pcc.sparsity.slices import Slices
from pcc.sparsity.structure import Packed, Structure
from pcc.sparsity.unstructured import Unstructured
from pcc.sparsity.values import Values
from pcc.sparsity.zeros import Zeros

_ROUNDS = 10
"""At most so many turns between zeros and scale..."""
_ENOUGH = 1e-4
"""...and no more once a turn takes off less than this part of the squared distance."""


@dataclass(frozen=True)
class Composition(Structure):
    """Two or more structures: filters, channels or columns, any number of times; then any other zeros, at most once;
    then values, at most once.

    A composition among the parts stands for its parts.
    """

    name: ClassVar[str] = "composition"

    parts: tuple[Structure, ...]

    def __post_init__(self) -> None:
        flat = tuple(
            structure for part in self.parts for structure in (part.parts if isinstance(part, Composition) else (part,))
        )
        object.__setattr__(self, "parts", flat)
        if len(self.parts) < 2:
            raise PccError(f"a composition of {len(self.parts)} structures: give two or more")
        first, rest = self.parts[0], self.rest
        if first.values_only:
            raise PccError(f"composition: {first.name} restricts values, so it comes last")
        if not rest.values_only and not isinstance(first, Slices):
            raise PccError(
                f"composition: after {first.name} only values may follow: coarser zeros (filter, channel, column) come "
                "before it"
            )
        if isinstance(rest, Binary) and not rest.keep_zeros:
            raise PccError("composition: binary weights leave no zero as it is: give binary keep_zeros")
        if isinstance(rest, Binary) and rest.per == "filter" and not isinstance(first, Slices):
            raise PccError(
                f"composition: what {first.name} leaves has no filters to give scales to: give binary one scale per "
                "layer"
            )

    def __str__(self) -> str:
        return " + ".join(map(str, self.parts))

    @property
    def rest(self) -> Structure:
        """What lives in the weight that the first part leaves."""
        return self.parts[1] if len(self.parts) == 2 else Composition(self.parts[1:])

    @property
    def zeros_only(self) -> bool:
        return all(part.zeros_only for part in self.parts)

    @property
    def exact(self) -> bool:
        """Whether `project` gives the nearest weight."""
        return isinstance(self.parts[0], Unstructured) and _symmetric(self.rest)

    def settle(self, weights: Sequence[np.ndarray]) -> Self:
        return replace(self, parts=tuple(part.settle(weights) for part in self.parts))

    def arranged(self, weight: np.ndarray, groups: int = 1) -> Self:
        return replace(self, parts=tuple(part.arranged(weight, groups) for part in self.parts))

    def project(self, weight: np.ndarray, groups: int = 1) -> np.ndarray:
        """The nearest weight, or a near one: see the table above. Idempotent."""
        first, rest = self.parts[0], self.rest
        if isinstance(rest, Values):
            return self._in_turn(first, rest, weight, groups)
        if rest.values_only:
            return rest.project(first.project(weight, groups), groups)
        cut = self._in_thin(rest, weight, groups)
        # Once more where a slice lost all its weights and another of zeros took its place, which rest may group anew.
        while not np.array_equal(cut, weight):
            weight, cut = cut, self._in_thin(rest, cut, groups)
        return cut

    def _in_thin(self, rest: Structure, weight: np.ndarray, groups: int) -> np.ndarray:
        """The slices of largest norm, and in what they leave the nearest that has the rest."""
        slices = self.parts[0]
        assert isinstance(slices, Slices)
        chosen = slices.choose(np.square(weight, dtype=np.float64), groups)
        thin, left = slices.thin(weight, chosen, groups)
        return slices.widen(rest.project(thin, left), chosen, weight.shape, groups)

    def nearest(self, weight: np.ndarray, scale: np.ndarray, groups: int = 1) -> np.ndarray:
        """The nearest weight for a known scale of the values (`Values.scale`), exactly. For zeros that take scores,
        followed by values."""
        zeros, values = self.parts[0], self.rest
        if not isinstance(zeros, Zeros) or not isinstance(values, Values):
            raise PccError(
                f"composition: {' and '.join(part.name for part in self.parts)} have no projection for a known scale"
            )
        valued = values.nearest(weight, scale)
        return np.where(zeros.keep(_worth(weight, valued), groups), valued, np.float32(0))

    def _in_turn(self, zeros: Structure, values: Values, weight: np.ndarray, groups: int) -> np.ndarray:
        """From the zeros of largest norm on: the best scale for the zeros, the best zeros for the scale."""
        left = zeros.project(weight, groups)
        scale = values.scale(left)
        found = values.nearest(left, scale)
        if self.exact or not isinstance(zeros, Zeros):
            return found
        distance = _distance(weight, found)
        for _ in range(_ROUNDS):
            left = np.where(zeros.keep(_worth(weight, values.nearest(weight, scale)), groups), weight, np.float32(0))
            scale = values.scale(left)
            moved = values.nearest(left, scale)
            before, distance = distance, _distance(weight, moved)
            if distance < before:
                found = moved
            if distance >= before * (1 - _ENOUGH):
                break
        return zeros.project(
            found, groups
        )  # changes nothing, but for filters that share connections and lost some more (`pcc.sparsity.kernels`)

    @classmethod
    def detect(cls, weight: np.ndarray, groups: int = 1) -> Self | str:
        from pcc.sparsity.detect import detect  # which knows all kinds, this one too

        found = detect(weight, groups)
        return found if isinstance(found, cls) else f"it is {found} alone" if isinstance(found, Structure) else found

    def pack(self, weight: np.ndarray, groups: int = 1) -> Packed:
        """The data of the last part, and the index of all: keys are ``0.NAME.KEY`` for the first part and
        ``1.NAME.KEY`` for what lives in it."""
        first, rest = self.parts[0], self.rest
        if isinstance(first, Slices):
            _, groups_left = first.thin(weight, first.choose(np.square(weight, dtype=np.float64), groups), groups)
        else:
            groups_left = 1
        outer = first.pack(weight, groups)
        left = outer.data["weight"]
        inner = rest.pack(left, groups_left)
        index = {f"0.{first.name}.{key}": array for key, array in outer.index.items()}
        index |= {f"1.{rest.name}.{key}": array for key, array in inner.index.items()}
        return Packed(weight.shape, inner.data, {**index, f"1.{rest.name}.shape": np.array(left.shape, dtype=np.int32)})

    @staticmethod
    def unpack(packed: Packed) -> np.ndarray:
        from pcc.sparsity.structures import kind

        names, tables = ["", ""], [dict[str, np.ndarray](), dict[str, np.ndarray]()]
        for key, array in packed.index.items():
            place, name, table = key.split(".", 2)
            names[int(place)], tables[int(place)][table] = name, array
        shape = tuple(tables[1].pop("shape").tolist())
        left = kind(names[1]).unpack(Packed(shape, packed.data, tables[1]))
        return kind(names[0]).unpack(Packed(packed.shape, {"weight": left}, tables[0]))


def _worth(weight: np.ndarray, valued: np.ndarray) -> np.ndarray:
    """How much nearer each weight w is to its value v than to zero, w^2 - (w - v)^2, float64."""
    values = valued.astype(np.float64)
    return values * (2 * weight.astype(np.float64) - values)


def _symmetric(values: Structure) -> bool:
    """Whether the values are the same above and below zero, and the same for all weights of a layer."""
    return isinstance(values, UniformLevels | PowerOfTwo | Ternary | Conductance) or (
        isinstance(values, Binary) and values.per == "layer"
    )


def _distance(weight: np.ndarray, other: np.ndarray) -> float:
    return float(np.square(weight.astype(np.float64) - other).sum())


def parts_of(structure: Structure) -> tuple[Structure, ...]:
    """The structures that a composition is made of; of another structure itself."""
    return structure.parts if isinstance(structure, Composition) else (structure,)
