"""Structures are found in weights that have them, whatever made them, and the weight is what they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcc.sparsity import pattern
from pcc.sparsity.centroids import Centroids
from pcc.sparsity.columns import Column
from pcc.sparsity.compose import Composition
from pcc.sparsity.detect import detect, share_patterns
from pcc.sparsity.filters import Channel, Filter
from pcc.sparsity.kernels import Kernels
from pcc.sparsity.levels import Binary, PowerOfTwo, Ternary, UniformLevels
from pcc.sparsity.n_of_m import NofM
from pcc.sparsity.structure import Structure
from pcc.sparsity.tetris import Tetris
from pcc.sparsity.unstructured import Unstructured
from pcc.sparsity.window import Window
from tests.sparsity.weights import nonzero_weight

DESIGNED = tuple(map(tuple, sorted(pattern.DESIGNED.tolist())))


def found_in(weight: np.ndarray, groups: int = 1) -> Structure:
    """What is found; the weight has it: projecting changes nothing, and it comes back from its packed form bit for
    bit."""
    found = detect(weight, groups)
    assert isinstance(found, Structure), found
    assert np.array_equal(found.project(weight, groups), weight), found
    assert np.array_equal(found.unpack(found.pack(weight, groups)), weight + np.float32(0)), found
    return found


@pytest.mark.parametrize(
    ("structure", "found"),
    [
        (Filter(2), Filter(2)),
        (Channel(4), Channel(4)),
        (Column(3), Composition((Channel(48 / 46), Column(46 * 3 / 48)))),  # two channels have no column left
        (Tetris(4, (8, 8)), Composition((Filter(8 / 7), Tetris(3.5, (8, 8))))),
        (Kernels(None, 4.0, share=2), Kernels(None, 4.0, share=2)),
        (Kernels("designed"), Kernels(DESIGNED)),
        (Kernels(None, 4.0), Kernels(None, 4.0)),
        (Kernels(None, 4.0, "filter"), Kernels(None, 4.0, "filter")),
        (Kernels("designed", 4.0, share=4), Kernels(DESIGNED, 4.0, share=4)),
        (Window(2.25), Window(2.25)),
        (NofM(2, 4), NofM(2, 4)),
        (NofM(1, 8), NofM(1, 8)),
        (Unstructured(4), Unstructured(4)),
        (Ternary(), Ternary()),
        (Binary(), Binary()),
        (UniformLevels(3), UniformLevels(3)),
        (PowerOfTwo(3), PowerOfTwo(3)),
        (Centroids(16), Centroids(16)),
        (Composition((Filter(2), Channel(2))), Composition((Filter(2), Channel(2)))),
        (Composition((Filter(2), Kernels("designed", 2.0))), Composition((Filter(2), Kernels(DESIGNED, 2.0)))),
        (Composition((Channel(2), Unstructured(3))), Composition((Channel(2), Unstructured(3)))),
        (Composition((Unstructured(3), Centroids(16))), Composition((Unstructured(3), Centroids(16)))),
        (Composition((Filter(2), UniformLevels(4))), Composition((Filter(2), UniformLevels(4)))),
        (
            Composition((Kernels("designed"), Binary(keep_zeros=True))),
            Composition((Kernels(DESIGNED), Binary(keep_zeros=True))),
        ),
    ],
)
def test_what_was_projected_is_found(structure: Structure, found: Structure) -> None:
    weight = structure.project(nonzero_weight(1, 64, 48, 3, 3))
    assert str(found_in(weight)) == str(found)


@pytest.mark.parametrize(
    "structure", [Filter(2), Channel(2), Column(2), Kernels("designed", 2.0), Unstructured(4), NofM(1, 4)]
)
def test_in_grouped_convolutions(structure: Structure) -> None:
    weight = structure.project(nonzero_weight(2, 32, 16, 3, 3), 4)
    assert type(found_in(weight, 4)) is type(structure)


@pytest.mark.parametrize(
    "structure",
    [Filter(2), Channel(2), NofM(2, 4), Unstructured(4), Kernels(None, 4.0, "filter", kernel=(1, 1)), Centroids(8)],
)
def test_in_linear_layers(structure: Structure) -> None:
    assert str(found_in(structure.project(nonzero_weight(3, 64, 128)))) == str(structure)


def test_a_few_accidental_zeros_hide_nothing() -> None:
    random = np.random.default_rng(0)
    for structure in (Kernels("designed", 2.0), NofM(2, 4), Column(2)):
        weight = structure.project(nonzero_weight(4, 64, 64, 3, 3))
        weight[np.unravel_index(random.choice(np.flatnonzero(weight), 50, replace=False), weight.shape)] = 0
        assert type(found_in(weight)) is type(structure)
    dense = nonzero_weight(5, 64, 64, 3, 3)
    dense[0, 0, 0, 0] = 0
    assert isinstance(detect(dense), str)


def test_why_there_is_none() -> None:
    assert detect(nonzero_weight(0, 8, 8, 3, 3)) == "no weight is zero and hardly any value is there twice"
    assert detect(np.zeros((4, 4), np.float32)) == "every weight is zero"


@settings(max_examples=60)
@given(st.data())
def test_any_weight_has_what_is_found(data: st.DataObject) -> None:
    groups = data.draw(st.sampled_from([1, 2]))
    shape = (
        groups * data.draw(st.integers(1, 5)),
        data.draw(st.integers(1, 6)),
        *data.draw(st.sampled_from([(), (1, 1), (3, 3), (1, 5)])),
    )
    random = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    values, drawn = np.array([0, 0, 0, 1, -2, 0.3], np.float32), nonzero_weight(int(random.integers(100)), *shape)
    weight = random.choice(values, shape) if data.draw(st.booleans()) else drawn
    for axis in range(len(shape)):
        weight[(slice(None),) * axis + (random.random(shape[axis]) < data.draw(st.sampled_from([0, 0.5])),)] = 0
    if isinstance(detect(weight, groups if len(shape) == 4 else 1), Structure):
        found_in(weight, groups if len(shape) == 4 else 1)


def test_layers_of_a_network_share_their_patterns() -> None:
    first, second = ((0, 1, 3, 4), (1, 2, 4, 5)), ((1, 2, 4, 5), (3, 4, 6, 7))
    both = ((0, 1, 3, 4), (1, 2, 4, 5), (3, 4, 6, 7))
    found = share_patterns(
        [
            Kernels(first),
            Composition((Filter(2), Kernels(second, 2.0))),
            Unstructured(2),
            Kernels(((0,), (1,)), kernel=(1, 3)),
        ]
    )
    assert found == [
        Kernels(both),
        Composition((Filter(2), Kernels(both, 2.0))),
        Unstructured(2),
        Kernels(((0,), (1,)), kernel=(1, 3)),
    ]
