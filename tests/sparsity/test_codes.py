import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcc.sparsity import codes


@settings(max_examples=40)
@given(bits=st.integers(1, codes.MOST_BITS), data=st.data())
def test_codes_come_back_from_just_enough_bytes(bits: int, data: st.DataObject):
    given_codes = np.array(data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=20)), dtype=np.int64)
    packed = codes.pack(given_codes, bits)
    assert packed.dtype == np.uint8
    assert packed.nbytes == -(-bits * len(given_codes) // 8)
    assert codes.unpack(packed, bits, len(given_codes)).tolist() == given_codes.tolist()


def test_the_first_code_is_in_the_highest_bits():
    assert codes.pack(np.array([0b101, 0b011, 0b110]), 3).tolist() == [0b10101111, 0b00000000]


def test_one_value_needs_no_bits():
    assert codes.bits_for(1) == 0
    packed = codes.pack(np.zeros(5, dtype=np.int64), 0)
    assert packed.nbytes == 0
    assert codes.unpack(packed, 0, 5).tolist() == [0] * 5


@pytest.mark.parametrize(("values", "bits"), [(2, 1), (3, 2), (4, 2), (5, 3), (256, 8)])
def test_bits_for(values: int, bits: int):
    assert codes.bits_for(values) == bits
