import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcc.sparsity.csr import Csr, pack, unpack
from tests.sparsity.weights import nonzero_weight


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 40))
    | st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)),
    density=st.sampled_from([0.0, 0.05, 0.5, 0.9]),
    seed=st.integers(0, 1000),
)
def test_round_trip_bit_for_bit(shape: tuple[int, ...], density: float, seed: int):
    rng = np.random.default_rng(seed)
    weight = nonzero_weight(seed, *shape) * (rng.random(shape) < density)
    weight.flat[rng.integers(weight.size)] = -0.0
    packed = pack(weight)
    assert isinstance(packed, Csr)
    assert unpack(packed).tobytes() == (weight + np.float32(0)).tobytes()
    assert len(packed.weight) == np.count_nonzero(weight)


def test_rows_are_listed_by_column():
    packed = pack(np.array([[0, 2, 3], [0, 0, 0], [4, 0, 0]], np.float32))
    assert isinstance(packed, Csr)
    assert (packed.offset.tolist(), packed.index.tolist(), packed.weight.tolist()) == (
        [0, 2, 2, 3],
        [1, 2, 0],
        [2, 3, 4],
    )


@pytest.mark.parametrize("shape", [(8, 16), (4, 3, 3, 3)])
def test_too_little_to_leave_out(shape: tuple[int, ...]):
    weight = nonzero_weight(0, *shape)
    assert pack(weight) == "no weight is zero"
    weight.flat[5:8] = 0
    assert pack(weight) == f"only 3 of {weight.size} weights are zero"
    weight.flat[8] = 0
    assert isinstance(pack(weight), Csr)
