"""ONNX's own tests of its operators: none is wrong, and what is claimed passes."""

from collections import Counter

import pytest

from pcc.frontend.onnx.rules import TABLE
from tools.onnx_nodes import run_tests

UNTESTED = {"Scatter", "Upsample", "Not", "GlobalLpPool"}
"""What ONNX has no tests of that are for pcc: old operators, tests in models of opset 6 and before."""


@pytest.mark.slow
def test_none_is_wrong() -> None:
    outcomes = list(run_tests())
    assert [outcome for outcome in outcomes if outcome.verdict in ("wrong", "crashed")] == []
    passed = Counter(outcome.operator for outcome in outcomes if outcome.verdict == "passed")
    assert passed.total() >= 1290
    assert {operator for operator in TABLE if not passed[operator]} <= UNTESTED


@pytest.mark.parametrize(
    "pattern",
    [
        "test_(conv|gemm|batchnorm|maxpool|averagepool)",
        "test_(resize|pad_|slice|softmax)",
        "test_(nonmax|loop|scan9|gru|cum|col2im|reversesequence|maxunpool|range)",
    ],
)
def test_some_operators(pattern: str) -> None:
    outcomes = list(run_tests(pattern))
    assert [outcome for outcome in outcomes if outcome.verdict in ("wrong", "crashed")] == []
    assert sum(outcome.verdict == "passed" for outcome in outcomes) > 20


def test_compiled_libraries_agree() -> None:
    tests = [
        "conv_with_strides_padding",
        "averagepool_2d_same_upper",
        "resize_upsample_scales_linear_align_corners",
        "nonmaxsuppression_two_batches",
    ]
    tests += [
        "maxpool_with_argmax_2d_precomputed_pads",
        "attention_4d",
        "split_equal_parts_1d_opset18",
        "less_bcast",
        "gather_negative_indices",
        "gru_defaults",
        "clip_example",
        "basic_deform_conv_with_padding",
        "roialign_aligned_true",
        "averagepool_2d_dilations",
    ]
    outcomes = list(run_tests(f"^test_({'|'.join(tests)})$", compiled=True))
    assert [(outcome.test, outcome.verdict) for outcome in outcomes if outcome.verdict != "passed"] == []
    assert len(outcomes) == len(tests)
