from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pcc.errors import PccError
from pcc.sparsity.levels import Binary, PowerOfTwo, Ternary, UniformLevels
from pcc.sparsity.scale import TOLERANCE, best_scale
from pcc.sparsity.structure import Structure
from tests.sparsity.weights import distance, nonzero_weight, weights

STRUCTURES = [
    *(UniformLevels(bits) for bits in (1, 2, 3, 8)),
    *(PowerOfTwo(bits) for bits in (1, 2, 3, 6)),
    Ternary(),
    *(Binary(per, zeros) for per in ("layer", "filter") for zeros in (False, True)),
]

few = hnp.arrays(
    np.float32, st.integers(1, 5), elements=st.integers(-3, 3).map(np.float32) | st.floats(-4, 4, width=32)
)
any_weight = (
    weights(st.integers(1, 4), st.integers(1, 4), (1, 2))
    | weights(st.integers(1, 4), st.integers(1, 4))
    | few.map(lambda flat: flat[:, None])
)


def least(magnitudes: np.ndarray, multipliers: np.ndarray) -> float:
    """The least squared distance over all scales: every assignment of levels, each with its best scale."""
    chosen = np.array(list(product(multipliers, repeat=len(magnitudes))))
    kept = np.square(chosen @ magnitudes.astype(np.float64)) / np.square(chosen).sum(axis=1)
    return max(0.0, float(np.square(magnitudes, dtype=np.float64).sum() - kept.max()))


@settings(max_examples=40)
@given(
    weight=few,
    structure=st.sampled_from([UniformLevels(1), UniformLevels(2), UniformLevels(3), PowerOfTwo(2), PowerOfTwo(3)]),
)
def test_scales_against_every_assignment(weight: np.ndarray, structure: UniformLevels | PowerOfTwo):
    best = least(np.abs(weight[weight != 0]), structure.multipliers(structure.bits)) if weight.any() else 0
    norm = float(np.square(weight, dtype=np.float64).sum())
    assert distance(weight, structure.project(weight)) <= best * (1 + TOLERANCE) ** 2 + 1e-9 * norm


def test_the_scale_found_is_nearly_always_the_best_of_all():
    rng = np.random.default_rng(5)
    multipliers = UniformLevels.multipliers(3)
    misses = 0
    for _ in range(50):
        magnitudes = rng.exponential(size=5).astype(np.float32)
        scale = best_scale(magnitudes, multipliers)
        found = np.square(np.abs(magnitudes[:, None] - scale * multipliers).min(axis=1)).sum()
        misses += found > least(magnitudes, multipliers) * (1 + 1e-5) + 1e-12
    assert misses <= 1


@pytest.mark.parametrize("structure", [UniformLevels(4), UniformLevels(8), PowerOfTwo(4)])
def test_scales_of_many_weights_against_a_fine_grid(structure: UniformLevels | PowerOfTwo):
    weight = np.random.default_rng(1).standard_t(4, 3000).astype(np.float32)
    top = float(np.abs(weight).max())
    grid = np.geomspace(top / structure.multipliers(structure.bits)[-1] / 8, 2 * top, 3000)
    best = min(distance(weight, structure.nearest(weight, np.array(scale, dtype=np.float32))) for scale in grid)
    assert distance(weight, structure.project(weight)) <= best * 1.0001


@settings(max_examples=40)
@given(weight=few)
def test_ternary_and_binary_are_the_nearest(weight: np.ndarray):
    norm = float(np.square(weight, dtype=np.float64).sum())
    magnitudes = np.abs(weight)
    chosen = np.array([mask for mask in product([0.0, 1.0], repeat=len(weight)) if any(mask)])
    ternary = norm - float((np.square(chosen @ magnitudes.astype(np.float64)) / chosen.sum(axis=1)).max())
    assert distance(weight, Ternary().project(weight)) == pytest.approx(ternary, abs=1e-6 * norm)
    signs = np.array(list(product([-1.0, 1.0], repeat=len(weight))))
    binary = norm - float(np.square(signs @ weight.astype(np.float64)).max() / len(weight))
    assert distance(weight, Binary().project(weight)) == pytest.approx(binary, abs=1e-6 * norm)
    rows = Binary("filter").project(np.stack([weight, 2 * weight[::-1]]))
    assert np.array_equal(rows, np.stack([Binary().project(weight), 2 * Binary().project(weight[::-1])]))


@settings(max_examples=40)
@given(weight=any_weight, structure=st.sampled_from(STRUCTURES))
def test_idempotent_detected_and_packed_bit_for_bit(weight: np.ndarray, structure: Structure):
    once = structure.project(weight)
    assert once.dtype == np.float32
    assert np.array_equal(structure.project(once), once)
    packed = structure.pack(once)
    assert (type(structure).unpack(packed) + 0.0).tobytes() == (once + 0.0).tobytes()
    assume(once.any())
    found = type(structure).detect(once)
    assert not isinstance(found, str)
    assert np.array_equal(found.project(once), once)


@settings(max_examples=40)
@given(
    weight=any_weight,
    structure=st.sampled_from(
        [
            candidate
            for candidate in STRUCTURES
            if not isinstance(candidate, Ternary) and candidate not in (Binary(), Binary("filter"))
        ]
    ),
)
def test_zeros_stay_and_nothing_else_becomes_zero(weight: np.ndarray, structure: Structure):
    assert np.array_equal(structure.project(weight) != 0, weight != 0)


def test_binary_fills_zeros_unless_they_are_kept():
    weight = np.array([[0, 3, -1], [0, 0, 0]], dtype=np.float32)
    assert Binary().project(weight).tolist() == [
        [np.float32(4 / 6), np.float32(4 / 6), -np.float32(4 / 6)],
        [np.float32(4 / 6)] * 3,
    ]
    assert Binary(keep_zeros=True).project(weight).tolist() == [[0, 2, -2], [0, 0, 0]]
    assert Binary("filter").project(weight).tolist() == [
        [np.float32(4 / 3), np.float32(4 / 3), -np.float32(4 / 3)],
        [0, 0, 0],
    ]
    assert Binary.detect(
        Binary("filter", keep_zeros=True).project(np.array([[1, 3], [8, 0]], dtype=np.float32))
    ) == Binary("filter", keep_zeros=True)


def test_levels_of_a_fixed_scale():
    weight = np.array([0, 0.1, -0.1, 0.74, 0.76, -9], dtype=np.float32)
    assert UniformLevels(2).nearest(weight, np.array(0.5, dtype=np.float32)).tolist() == [0, 0.5, -0.5, 0.5, 1, -1]
    assert PowerOfTwo(3).nearest(weight, np.array(1, dtype=np.float32)).tolist() == [0, 0.125, -0.125, 0.5, 1, -1]
    assert Ternary().nearest(weight, np.array(1, dtype=np.float32)).tolist() == [0, 0, 0, 1, 1, -1]


@pytest.mark.parametrize(
    ("weight", "levels", "power"),
    [
        ([3, -6, 9], UniformLevels(3), None),
        ([0.75, 3, 0], UniformLevels(3), PowerOfTwo(3)),
        ([5, 5], UniformLevels(1), PowerOfTwo(1)),
        ([1, 128], UniformLevels(8), PowerOfTwo(4)),
    ],
)
def test_the_smallest_set_is_detected(weight: list[float], levels: UniformLevels, power: PowerOfTwo | None):
    array = np.array(weight, dtype=np.float32)[:, None]
    assert UniformLevels.detect(array) == levels
    assert PowerOfTwo.detect(array) == power or (power is None and "no power-of-two" in str(PowerOfTwo.detect(array)))


@pytest.mark.parametrize("kind", [UniformLevels, PowerOfTwo, Ternary, Binary])
def test_nothing_to_gain_is_said(kind: type[Structure]):
    assert kind.detect(np.zeros((2, 3), dtype=np.float32)) == "every weight is zero"
    assert isinstance(kind.detect(nonzero_weight(3, 100, 100)), str)
    assert isinstance(UniformLevels.detect(np.array([1, 129], dtype=np.float32)), str)


def test_codes_take_the_bits_they_should():
    weight = nonzero_weight(2, 10, 8, 3, 3)
    levels = UniformLevels(3)
    count = levels.count(levels.project(weight))
    assert (count.kept, count.index_bytes, count.data_bytes) == (720, 0, 720 * 3 // 8 + 4 + 1)
    weight[::2] = 0
    count = levels.count(levels.project(weight))
    assert (count.kept, count.data_bytes) == (360, 360 * 3 // 8 + 4 + 1)
    assert 0 < count.index_bytes <= 720 // 8 + 8


def test_wrong_use():
    with pytest.raises(PccError, match="1 to 8"):
        UniformLevels(9)
    with pytest.raises(PccError, match="1 to 6"):
        PowerOfTwo(0)
    with pytest.raises(PccError, match="'channel'"):
        Binary("channel")
    for structure in (UniformLevels(3), PowerOfTwo(3), Ternary(), Binary()):
        with pytest.raises(PccError, match="project them first"):
            structure.pack(nonzero_weight(4, 5, 5))
