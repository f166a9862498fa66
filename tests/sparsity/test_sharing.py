import numpy as np
import pytest

from pcc.sparsity import joint, pattern
from pcc.sparsity.fkw import pack, unpack, validate
from pcc.sparsity.kernels import Kernels
from tests.sparsity.weights import cut_to_patterns, nonzero_weight


def found_in(weight: np.ndarray, groups: int = 1) -> Kernels:
    found = Kernels.detect(weight, groups)
    assert isinstance(found, Kernels), found
    packed = pack(weight, groups, found.taps(weight), found.share, found.places(len(weight)))
    validate(packed)
    assert np.array_equal(unpack(packed), weight)
    assert len(packed.index) * packed.share == kept(found, weight)
    return found


def kept(found: Kernels, weight: np.ndarray) -> int:
    """Connections that are stored, counted for each filter."""
    return round(weight.shape[0] * weight.shape[1] / found.rate)


@pytest.mark.parametrize("share", [1, 2, 4])
@pytest.mark.parametrize("groups", [1, 2])
def test_what_was_projected_is_found(share: int, groups: int):
    cut = joint.project(nonzero_weight(0, 32, 24, 3, 3), pattern.DESIGNED, 3.6, share=share, groups=groups)
    found = found_in(cut.weight, groups)
    assert found.share == share
    assert found.patterns == tuple(map(tuple, sorted(pattern.DESIGNED.tolist())))
    assert kept(found, cut.weight) == (cut.choice >= 0).sum()


@pytest.mark.parametrize("share", [2, 4])
def test_sharing_is_found_after_a_shuffle(share: int):
    cut = joint.project(nonzero_weight(1, 32, 24, 3, 3), pattern.DESIGNED, 3.6, share=share, order=np.arange(32))
    assert found_in(cut.weight).order is None
    shuffled = cut.weight[np.random.default_rng(0).permutation(32)]
    found = found_in(shuffled)
    assert found.share == share
    assert kept(found, shuffled) == (cut.choice >= 0).sum()


def test_accidental_zeros_do_not_hide_sharing():
    cut = joint.project(nonzero_weight(2, 32, 32, 3, 3), pattern.DESIGNED, 3.6, share=4, order=np.arange(32))
    weight = cut.weight
    weight.reshape(-1)[np.flatnonzero(weight)[::97]] = 0
    first = np.argwhere(weight.any(axis=(2, 3)))[0]
    weight[tuple(first)] = 0
    assert found_in(weight).share == 4


def test_connectivity_alone():
    weight = joint.project(nonzero_weight(3, 16, 20, 3, 3), rate=3.6, scope="filter").weight
    found = found_in(weight)
    assert (found.patterns, found.scope, found.share) == (None, "filter", 1)


def test_connectivity_of_1x1_with_sharing():
    weight = joint.project(nonzero_weight(4, 16, 40, 1, 1), rate=4, share=4).weight
    found = found_in(weight)
    assert found.share == 4
    assert kept(found, weight) == 160


def test_unstructured_zeros_that_remove_whole_connections_are_connectivity():
    weight = nonzero_weight(5, 16, 40, 3, 3) * (np.random.default_rng(5).uniform(size=(16, 40, 3, 3)) < 0.1)
    found = found_in(weight.astype(np.float32))
    assert found.patterns is None
    assert kept(found, weight) == weight.any(axis=(2, 3)).sum()


@pytest.mark.parametrize(
    ("weight", "groups", "reason"),
    [
        (nonzero_weight(6, 8, 8, 3, 3), 1, "no connection is all zero and some connections use all 9 taps"),
        (nonzero_weight(6, 8, 1, 3, 3), 8, "depthwise: a filter has one connection"),
        (np.zeros((4, 4, 3, 3), dtype=np.float32), 1, "every weight is zero"),
    ],
)
def test_reasons(weight: np.ndarray, groups: int, reason: str):
    assert Kernels.detect(weight, groups) == reason


def test_patterns_of_one_filter_each_need_no_sharing():
    found = found_in(cut_to_patterns(nonzero_weight(7, 3, 5, 3, 3), pattern.DESIGNED))
    assert found.share == 1
    assert found.rate == 1
