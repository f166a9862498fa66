"""Which processor pcc takes this computer's for."""

import pytest

from pcc import target
from pcc.target import host_cpu

AVX512 = "fpu avx2 avx512f avx512vl avx512dq avx512bw"


@pytest.mark.parametrize(
    ("fields", "cpu"),
    [
        ({"vendor_id": "AuthenticAMD", "cpu family": "26", "flags": AVX512}, "znver5"),
        ({"vendor_id": "AuthenticAMD", "cpu family": "26", "flags": "fpu avx2"}, "x86-64-v3"),
        ({"vendor_id": "AuthenticAMD", "cpu family": "25", "flags": AVX512}, "znver4"),
        ({"vendor_id": "AuthenticAMD", "cpu family": "25", "flags": "fpu avx2"}, "znver3"),
        ({"vendor_id": "GenuineIntel", "cpu family": "6", "flags": AVX512}, "x86-64-v4"),
        ({}, "x86-64-v3"),
    ],
)
def test_host_cpu(fields: dict[str, str], cpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "host_fields", lambda: fields)
    assert host_cpu() == cpu
