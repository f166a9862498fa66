from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcc.errors import PccError
from pcc.sparsity import connectivity, joint, pattern
from pcc.sparsity.fkw import FKW, pack, unpack, validate
from tests.sparsity.weights import cut_connections, cut_to_patterns, nonzero_weight


@settings(max_examples=60)
@given(
    seed=st.integers(0, 1000),
    filters=st.sampled_from([4, 8, 12]),
    inputs=st.integers(1, 9),
    groups=st.sampled_from([1, 2]),
    rate=st.sampled_from([1.0, 2.0, 3.6]),
    scope=st.sampled_from(connectivity.SCOPES),
    share=st.sampled_from([1, 2]),
    patterns=st.sampled_from([None, pattern.DESIGNED]),
)
def test_round_trip_bit_for_bit(
    seed: int, filters: int, inputs: int, groups: int, rate: float, scope: str, share: int, patterns: np.ndarray | None
):
    weight = nonzero_weight(seed, filters, inputs, 3, 3)
    weight[np.random.default_rng(seed).uniform(size=weight.shape) < 0.05] = 0
    cut = joint.project(weight, patterns, rate, scope=scope, share=share, groups=groups)
    packed = pack(cut.weight, groups, patterns, share, cut.order)
    validate(packed)
    assert unpack(packed).tobytes() == (cut.weight + np.float32(0)).tobytes()


def test_connections_are_ordered_by_pattern_then_channel():
    weight = cut_to_patterns(nonzero_weight(0, 4, 30, 3, 3), pattern.DESIGNED)
    packed = pack(weight, patterns=pattern.DESIGNED)
    choice = pattern.fit(weight, pattern.DESIGNED)
    for filter_ in range(4):
        start = packed.offset[filter_]
        for filter in range(4):
            begin, end = start + packed.stride[filter_, filter : filter + 2]
            assert packed.index[begin:end].tolist() == np.flatnonzero(choice[filter_] == filter).tolist()


def test_grouped_convolutions_store_absolute_channels():
    weight = cut_connections(nonzero_weight(0, 6, 4, 3, 3), 2)
    packed = pack(weight, groups=3)
    for filter_ in range(6):
        channels = packed.index[packed.offset[filter_] : packed.offset[filter_ + 1]]
        assert (channels // 4 == filter_ // 2).all()
    assert np.array_equal(unpack(packed), weight)


def test_filter_groups_store_their_filters_next_to_each_other():
    cut = joint.project(nonzero_weight(0, 8, 10, 3, 3), pattern.DESIGNED, 2, share=4)
    packed = pack(cut.weight, 1, pattern.DESIGNED, 4, cut.order)
    channel, taps = packed.index[0], packed.patterns[np.flatnonzero(packed.stride[0])[0] - 1]
    assert packed.weight.shape == (len(packed.index), 4, 4)
    assert np.array_equal(packed.weight[0], cut.weight[cut.order[:4], channel].reshape(4, 9)[:, taps].T)


def test_negative_zeros_are_zeros():
    weight = np.full((1, 2, 1, 1), -0.0, dtype=np.float32)
    weight[0, 1] = 2
    packed = pack(weight)
    assert len(packed.index) == 1
    assert not np.signbit(unpack(packed)).any()


def test_empty_filters_and_an_all_zero_weight():
    weight = nonzero_weight(0, 3, 2, 3, 3)
    weight[1] = 0
    packed = pack(weight)
    assert packed.offset.tolist() == [0, 2, 2, 4]
    nothing = pack(weight * 0)
    validate(nothing)
    assert len(nothing.index) == 0
    assert not unpack(nothing).any()


def test_golden_tables(golden: Callable[[str, str], None]):
    weight = np.arange(1, 4 * 3 * 9 + 1, dtype=np.float32).reshape(4, 3, 3, 3) * np.where(
        np.arange(108).reshape(4, 3, 3, 3) % 5 < 3, 1, -1
    )
    cut = joint.project(weight, pattern.DESIGNED, 1.5, share=2, order=np.array([3, 1, 2, 0]))
    packed = pack(cut.weight, 1, pattern.DESIGNED, 2, cut.order)
    golden(
        "\n".join(f"{field.name}: {np.array(getattr(packed, field.name)).tolist()}" for field in fields(FKW)) + "\n",
        "fkw",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patterns": pattern.DESIGNED}, "16 connections fit no pattern: the first is filter 0, channel 0"),
        ({"order": np.array([0, 1, 2, 2])}, "not a permutation"),
        ({"groups": 2, "share": 4}, "do not divide into filter groups of 4"),
        ({"groups": 2, "share": 2, "order": np.array([0, 2, 1, 3])}, "mixes filters"),
    ],
)
def test_weights_that_cannot_be_packed(arguments: dict[str, Any], message: str):
    with pytest.raises(PccError, match=message):
        pack(nonzero_weight(0, 4, 4, 3, 3), **arguments)


def _changed(array: np.ndarray, at: int | tuple[int, ...], value: float) -> np.ndarray:
    copy = array.copy()
    copy[at] = value
    return copy


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: replace(f, share=3), "do not divide"),
        (lambda f: replace(f, patterns=f.patterns[0]), r"\(P, E\)"),
        (lambda f: replace(f, patterns=_changed(f.patterns, (0, 3), 9)), r"outside 0\.\.8"),
        (lambda f: replace(f, patterns=f.patterns[:, ::-1].copy()), "do not ascend"),
        (lambda f: replace(f, index=f.index.astype(np.int64)), "index is int64"),
        (lambda f: replace(f, weight=f.weight[:-1]), r"weight is float32\["),
        (lambda f: replace(f, reorder=_changed(f.reorder, 0, 1)), "not a permutation"),
        (lambda f: replace(f, reorder=f.reorder[[0, 2, 1, 3]]), "mixes convolution groups"),
        (lambda f: replace(f, offset=f.offset + np.int32(1)), "does not run from 0"),
        (lambda f: replace(f, stride=_changed(f.stride, (0, 0), 1)), "does not ascend from 0"),
        (lambda f: replace(f, stride=_changed(f.stride, (0, 4), 99)), "disagree"),
        (lambda f: replace(f, index=_changed(f.index, 0, 8)), "outside the convolution group"),
        (
            lambda f: replace(f, index=f.index[::-1].copy(), reorder=f.reorder[[2, 3, 0, 1]]),
            "do not ascend inside a pattern",
        ),
    ],
)
def test_validation_names_the_damage(damage: Callable[[FKW], FKW], message: str):
    weight = cut_to_patterns(nonzero_weight(0, 4, 8, 3, 3), pattern.DESIGNED)
    shared = joint.project(weight, pattern.DESIGNED, share=2, groups=2, order=np.arange(4)).weight
    packed = pack(shared, 2, pattern.DESIGNED, 2)
    validate(packed)
    with pytest.raises(PccError, match=f"damaged FKW weight: .*{message}"):
        validate(damage(packed))


def test_validation_finds_a_channel_stored_twice():
    weight = np.zeros((1, 2, 3, 3), dtype=np.float32)
    weight.reshape(2, 9)[0, pattern.DESIGNED[0]] = 1
    weight.reshape(2, 9)[1, pattern.DESIGNED[1]] = 1
    packed = pack(weight, patterns=pattern.DESIGNED)
    with pytest.raises(PccError, match="stored twice"):
        validate(replace(packed, index=np.zeros(2, dtype=np.int32)))
