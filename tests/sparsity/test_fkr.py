import numpy as np
import pytest

from pcc.sparsity import joint, pattern
from pcc.sparsity.fkr import filter_order
from pcc.sparsity.fkw import pack
from pcc.sparsity.kernels import Kernels
from tests.sparsity.weights import nonzero_weight


def structure_of(weight: np.ndarray, groups: int = 1) -> Kernels:
    found = Kernels.detect(weight, groups)
    assert isinstance(found, Kernels)
    return found


def neighbours_in_common(weight: np.ndarray, structure: Kernels, order: np.ndarray) -> int:
    """How many (channel, pattern) a filter has in common with the next, in all."""
    choice = pattern.fit(weight, structure.taps(weight))[order]
    return int(((choice[1:] == choice[:-1]) & (choice[1:] >= 0)).sum())


@pytest.mark.parametrize("share", [1, 2, 4])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("scope", ["layer", "filter"])
def test_a_weight_in_order_stays(share: int, groups: int, scope: str):
    weight = joint.project(
        nonzero_weight(0, 64, 40, 3, 3), pattern.DESIGNED, 3, scope=scope, share=share, groups=groups
    ).weight
    order = filter_order(weight, structure_of(weight, groups), groups)
    assert (np.sort(order.reshape(groups, -1), axis=1) == np.arange(64).reshape(groups, -1)).all()
    ordered = weight[order]
    assert np.array_equal(filter_order(ordered, structure_of(ordered, groups), groups), np.arange(64))


def test_long_filters_come_first():
    weight = nonzero_weight(1, 48, 64, 3, 3)
    weight[np.random.default_rng(0).uniform(size=(48, 64)) < np.linspace(0.1, 0.9, 48)[:, None]] = 0
    order = filter_order(weight, structure_of(weight))
    lengths = np.diff(pack(weight, order=order).offset)
    assert (np.diff(lengths // (lengths.max() // 16)) <= 0).all()


def test_like_filters_become_neighbours():
    rng = np.random.default_rng(2)
    kinds = joint.project(nonzero_weight(2, 6, 60, 3, 3), pattern.DESIGNED, 3, scope="filter").weight
    which = rng.permutation(np.repeat(np.arange(6), 5))
    weight = kinds[which]
    for filter_ in range(30):
        gone = rng.choice(np.flatnonzero(weight[filter_].any(axis=(1, 2))), 2, replace=False)
        weight[filter_, gone] = 0
    structure = structure_of(weight)
    order = filter_order(weight, structure)
    assert (np.diff(which[order]) != 0).sum() == 5
    assert neighbours_in_common(weight, structure, order) > 2 * neighbours_in_common(weight, structure, np.arange(30))


def test_filter_groups_stay_together():
    weight = joint.project(nonzero_weight(3, 32, 24, 3, 3), pattern.DESIGNED, 3, share=4).weight
    structure = structure_of(weight[np.random.default_rng(3).permutation(32)])
    assert structure.share == 4
    shuffled = weight[np.random.default_rng(3).permutation(32)]
    packed = pack(shuffled, 1, structure.taps(shuffled), 4, filter_order(shuffled, structure))
    assert len(packed.index) * 4 == round(32 * 24 / structure.rate)
