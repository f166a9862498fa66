"""Tests that need an emulated arm64: marked, and reported as not run, with the reason, where QEMU or the arm64 C library is missing."""

from collections.abc import Callable
from typing import TypeVar

import pytest

from pcc.deploy import Qemu

Test = TypeVar("Test", bound=Callable)


def arm64(test: Test) -> Test:
    """Marks a test function or class as one for arm64."""
    missing = Qemu.missing()
    return pytest.mark.arm64(pytest.mark.skipif(missing is not None, reason=f"arm64 not run: {missing}")(test))
