"""What arm64 kernels execute, counted: dense ones nothing but their multiply-adds and little else, sparse ones far
less, and never more where chosen."""

import pytest

from pcc.codegen.program import ProgramBuilder
from pcc.deploy.counting_qemu import missing
from pcc.sparsity import pattern
from pcc.tune.layers import Case, dense_weight, sparse_weight
from pcc.tune.measure import count_program
from tests.arm64 import arm64
from tools.count_arm64.forms import LANES, MACHINE, TARGET, record

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"instructions not counted: {missing()}")


@arm64
def test_dense_and_sparse() -> None:
    case = Case(32, 14, 32)
    b = ProgramBuilder("mix", MACHINE.isa)
    record(b, case, "dense", dense_weight(case), "conv-dense")
    record(b, case, "chosen", dense_weight(case))
    for share in (1, 2, 4):
        record(b, case, f"sparse{share}", sparse_weight(case, pattern.DESIGNED, 3.6, share))
    counted = count_program(b.build(), TARGET)
    dense = counted["dense"]
    assert dense.kernel.startswith("pcc_conv_filters_8x14")
    assert dense.vfma == case.macs / LANES  # rows of 14: no tile computes anything twice
    assert dense.vfma > 0.6 * dense.total
    assert counted["chosen"].total < dense.total / 1.5  # Winograd
    for share in (1, 2, 4):
        sparse = counted[f"sparse{share}"]
        kept = sparse_weight(case, pattern.DESIGNED, 3.6, share).weight.size
        assert sparse.vfma >= kept * case.macs / LANES / dense_weight(case).size  # no output is left out
        assert sparse.total < dense.total / 2  # of 8 times fewer weights
        assert sparse.vfma > 0.25 * sparse.total  # loops of two or three connections


@arm64
def test_sparse_is_chosen_only_where_it_executes_less() -> None:
    b, chosen = ProgramBuilder("choice", MACHINE.isa), []
    for case in (Case(32, 14, 32), Case(64, 14, 32, 1), Case(64, 7, 64, 1)):
        dense = record(b, case, f"dense {case}", dense_weight(case))
        for rate in (1.0, 1.5, 2.0, 3.0):
            name = f"sparse {case} {rate}"
            if record(b, case, name, sparse_weight(case, None, rate, 1)) < dense:
                chosen.append((f"dense {case}", name))
    counted = count_program(b.build(), TARGET)
    assert len(chosen) >= 3
    for dense, sparse in chosen:
        assert counted[sparse].total < counted[dense].total, sparse
