"""Lists of one length: everything stays listed, for the filters that keep it at least."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pcc.codegen.kernels.even_lists import even_lists


@given(
    st.integers(1, 4).flatmap(
        lambda size: arrays.arrays(
            np.int64, st.tuples(st.integers(1, 9), st.just(1 << size)), elements=st.integers(0, 30)
        )
    )
)
def test_every_entry_stays_in_a_list_of_its_filters(counts: np.ndarray) -> None:
    evened, listed = even_lists(counts), counts + even_lists(counts).filled
    for move in evened.moves:
        assert move.source & move.target == move.source != move.target
        assert (move.entries >= 0).all()
        listed[:, move.source] -= move.entries
        listed[:, move.target] += move.entries
    assert np.array_equal(listed, evened.counts)
    assert (evened.counts >= 0).all()
    assert (evened.counts[:, 1:-1] == evened.counts[0, 1:-1]).all()


def test_few_lists_are_filled_up() -> None:
    """Channels that filters keep by chance: a seventh of the work more, and only one list a group of any length."""
    kept = np.random.default_rng(0).random((200, 4, 160)) < 0.5
    members = (kept << np.arange(4)[:, None]).sum(axis=1)
    counts = np.stack([np.bincount(row, minlength=16) for row in members])
    counts[:, 0] = 0
    users = np.array([of_set.bit_count() for of_set in range(16)])
    evened = even_lists(counts)
    assert evened.filled.sum() < 0.05 * counts.sum()
    assert (evened.counts @ users).sum() < 1.2 * (counts @ users).sum()
