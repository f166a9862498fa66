"""What is read out of the compilers' texts, and how it is multiplied out."""

import numpy as np
import pytest

from pcc.dtype import FLOAT16, FLOAT32
from tools.gpu_stats import adreno, fp16, mali
from tools.gpu_stats.forms import FORMS, Shape, connections, trips
from tools.gpu_stats.stats import Counts, KernelStats, split_at_loops

ADRENO = """\
MESA: info: ; options
MESA: info: (jp)(nop3) add.u r0.x, r0.y, r0.z
MESA: info: l1:
MESA: info: cmps.s.ge p0.y, r0.x, r1.x
MESA: info: br p0.y, #l8
MESA: info: ldg.a.u16 hr0.x, g[r4.y+(r0.w<<1)], 4
MESA: info: (sy)(rpt3)mad.f16 hr1.x, (r)hr2.x, hr3.x, (r)hr1.x
MESA: info: jump #l1
MESA: info: l8:
MESA: info: stg.a.u16 g[r4.x+(r1.w<<1)], hr1.x, 4
MESA: info: (nop2) end
MESA: info: ; CL: outputs:
MESA: info: ; CL prog 4/1: 8 instr, 5 nops, 3 non-nops, 0 mov, 0 cov, 12 dwords
MESA: info: ; CL prog 4/1: 0 last-baryf, 0 last-helper, 0 half, 9 full, 16 constlen
MESA: info: ; CL prog 4/1: 1 cat0, 0 cat1, 1 cat2, 1 cat3, 0 cat4, 0 cat5, 2 cat6, 0 cat7
MESA: info: ; CL prog 4/1: 0 sstall, 0 (ss), 1 systall, 1 (sy), 1 loops
MESA: info: ; CL prog 4/1: 10 max_waves, 1 double_threadsize
"""

MALI = """\
block0 {
   r1 = LOAD.i64.unsigned.slot1 r2
}
   r1 = LOAD.i32.tl tls_ptr, tls_ptr[1], byte_offset:16
   STORE.i32.force.slot0 @r61, thread_local_pointer.w0, offset:16
   MOV.i32 r1, r2
   LOAD.i64.unsigned.slot1 @r26:r27, ^r28, offset:0
   FMA.v2f16 r8, r25.h11, r27.h11, ^r8.h00
   LOAD.i32.unsigned.slot2.wait2 @r1, thread_local_pointer.w0, offset:16
   BRANCHZ.eq.reconverge 0x0, offset:-4
   STORE.i64.slot2.end @r2:r3, ^r0, offset:0

SHADER-DB: MESA_SHADER_KERNEL shader: 7 inst, 1.0 cycles, 1.0 fma, 0.0 cvt, 0.0 sfu, 0.0 v, 0.0 t, 1.0 ls, \
3 quadwords, 1 threads, 1 loops, 2:3 spills:fills
"""


def test_adreno() -> None:
    stats = adreno.parse(ADRENO)
    assert stats is not None
    assert stats == KernelStats(8, 9, 10, False, Counts(slots=8, writes=1), (Counts(slots=8, mads=4, reads=1),))
    assert stats.run([3]) == Counts(slots=32, mads=12, reads=3, writes=1)
    with pytest.raises(ValueError, match="1 loops were compiled, and trips are said of 2"):
        stats.run([1, 2])
    assert adreno.parse("build error -11") is None


def test_mali() -> None:
    stats = mali.parse(MALI)
    loop = Counts(slots=4, mads=1, reads=1, spills=1)
    assert stats == KernelStats(7, 64, 1, True, Counts(slots=3, writes=1, spills=1), (loop,))
    assert mali.parse("no such device") is None


def test_an_instruction_belongs_to_the_innermost_loop() -> None:
    counts = [Counts(slots=10**place) for place in range(6)]
    once, loops = split_at_loops(counts, [(2, 1), (4, 0)])
    assert (once.slots, [loop.slots for loop in loops]) == (111001, [110])


@pytest.mark.parametrize("family", list(FORMS))
def test_trips_are_what_the_tables_say(family: str) -> None:
    shape = Shape(64, 32, 12)
    for name, forms in FORMS[family].items():
        for form in forms:
            dtype, arithmetic = (FLOAT16, FLOAT32) if name == "F(4x4)" else (FLOAT16, FLOAT16)
            steps = [trips(call) for call in form.calls(shape, dtype, arithmetic)]
            kept = round(64 / 3.6)
            if name in ("free", "shared by 4"):
                assert sum(steps[0]) == pytest.approx(kept)
            elif name == "dense direct":
                assert steps == [[64]]
            else:
                assert steps == [[], [32 if form.name.endswith("8x4") else 16, 0], []]


def test_connections_are_a_valid_weight() -> None:
    from pcc.sparsity.fkw import validate

    for share in (1, 4):
        weight = connections(32, 64, share)
        validate(weight)
        assert len(np.unique(np.diff(weight.offset))) == 1


def test_sparse_is_the_most_exact_in_fp16() -> None:
    found = fp16.errors(64)
    assert found["sparse"][1] < 1e-3 < found["F(2x2)"][1] < found["dense direct"][1] < 3e-3
    assert found["F(4x4)"][1] > 2 * found["dense direct"][1]
    assert found["F(4x4)"][0] < 2e-3
