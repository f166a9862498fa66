"""Inner loops in assembly, and their cycles."""

from pathlib import Path

import pytest

from tools.count_arm64.mca import CORES, count, inner_loops, missing, price, total_cycles

_NESTED = """\
\t.text
kernel:
\tmov\tx9, #8
.LBB0_1:                                // outer
\tmov\tx8, #4
.LBB0_2:
\tldr\tq2, [x1], #16
.Ltmp3:
\tfmla\tv0.4s, v2.4s, v1.s[0]
\tfmla\tv3.4s, v2.4s, v1.s[1]
\tfmla\tv4.4s, v2.4s, v1.s[2]
\tfmla\tv5.4s, v2.4s, v1.s[3]
\tsubs\tx8, x8, #1
\tb.ne\t.LBB0_2
\tsubs\tx9, x9, #1
\tb.ne\t.LBB0_1
\tret
"""
_TABLE = """\
.LBB1_1:
\tldrb\tw8, [x0], #1
\tbr\tx8
.LBB1_2:
\tfmla\tv0.4s, v2.4s, v1.s[0]
\tb\t.LBB1_4
.LBB1_3:
\tfmla\tv1.4s, v2.4s, v1.s[0]
.LBB1_4:
\tcbnz\tx9, .LBB1_1
"""


def test_the_innermost_loop_is_found() -> None:
    ((label, body),) = inner_loops(_NESTED)
    assert label == ".LBB0_2"
    assert (len(body), count(body, "fml"), count(body, "ld")) == (7, 4, 1)


def test_a_loop_that_jumps_by_a_table_is_its_blocks() -> None:
    assert [(label, len(body)) for label, body in inner_loops(_TABLE)] == [
        (".LBB1_1", 2),
        (".LBB1_2", 2),
        (".LBB1_3", 1),
        (".LBB1_4", 1),
    ]


def test_reports_are_read() -> None:
    assert total_cycles(
        "[0] Code Region - 0\n\nIterations:        200\nTotal Cycles:      1603\n\nTotal Cycles:  7\n"
    ) == [1603, 7]


@pytest.mark.skipif(missing() is not None, reason=f"loops not timed: {missing()}")
def test_loops_are_timed(tmp_path: Path) -> None:
    path = tmp_path / "kernel.s"
    path.write_text(_NESTED)
    loops = [loop for core in CORES for loop in price([("kernel", path), ("again", path)], core)]
    assert [(loop.core, loop.kernel) for loop in loops] == [
        (core, name) for core in CORES for name in ("kernel", "again")
    ]
    assert 2 <= loops[0].cycles < loops[2].cycles  # two multiply-adds a cycle, and fewer
