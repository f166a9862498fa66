"""Networks that come in as files: pcc's library computes what ONNX Runtime, or PyTorch, makes of the file."""

import pytest

from tests.frontend.imported_networks import TOLERANCE, Case, NotExported, cases, check


def test_a_small_one_from_a_file() -> None:
    assert check(Case("lenet5", "onnx-dynamo", "dropped"), emulated=False).x86_64 < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(), ids=str)
def test_all(case: Case) -> None:
    try:
        result = check(case, emulated=False)
    except NotExported as error:
        pytest.skip(str(error))
    assert result.x86_64 < TOLERANCE
