"""What the plugin writes, read; and one small program counted."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pcc.deploy.counting_qemu import Counts, missing, parse, plugin_words
from tests.arm64 import arm64
from tools.bench_peers.process import EngineFailed
from tools.count_arm64.count import marked

_TEXT = """clock=1 vfma=5 vload=1
clock=3 vfma=0 vload=2
clock=1 vfma=10 vload=20 load_bytes=64 store_bytes=16 l1_misses=2 l2_misses=1
clock=3 vfma=1 vload=2 load_bytes=1 store_bytes=0 l1_misses=0 l2_misses=0
"""


def test_intervals_are_read() -> None:
    intervals = parse(_TEXT)
    assert [interval.clock for interval in intervals] == [1, 3, 1, 3]
    assert intervals[0].counts == Counts(Counter(vfma=5, vload=1), Counter())
    assert intervals[2].counts.total == 30
    assert intervals[2].counts.memory["load_bytes"] == 64


def test_what_is_marked_is_between_readings_of_the_threads_clock() -> None:
    counts = marked(parse(_TEXT))
    assert counts.vfma == 11
    assert counts.total == 33
    assert counts.memory["load_bytes"] == 65
    with pytest.raises(EngineFailed, match="not read twice"):
        marked(parse(_TEXT)[:3])


_PROGRAM = """
.global _start
_start:
    mov x8, 113         // clock_gettime(CLOCK_MONOTONIC, data)
    mov x0, 1
    ldr x1, =data
    svc 0
    ldr x2, =data
    mov w3, 1000
again:
    fmla v0.4s, v1.4s, v2.4s
    fmla v0.4s, v1.4s, v2.s[1]
    sdot v3.4s, v1.16b, v2.16b
    ldr q4, [x2]
    prfm pldl1keep, [x2]
    add x2, x2, 64
    subs w3, w3, 1
    b.ne again
    mov x8, 113
    mov x0, 1
    ldr x1, =data
    svc 0
    mov x8, 94          // exit
    mov x0, 0
    svc 0
.bss
.balign 64
data: .space 65536
"""


@arm64
@pytest.mark.skipif(missing() is not None, reason=f"instructions not counted: {missing()}")
def test_a_loop_is_counted(tmp_path: Path) -> None:
    """1000 turns over 1000 lines of memory: every class, every byte, every miss."""
    source, object_file, program, counts = (tmp_path / name for name in ("loop.s", "loop.o", "loop", "counts"))
    source.write_text(_PROGRAM)
    zig = [sys.executable, "-m", "ziglang"]
    subprocess.run(
        [*zig, "cc", "-target", "aarch64-linux-musl", "-mcpu=cortex_a76", "-c", source, "-o", object_file], check=True
    )
    subprocess.run([*zig, "ld.lld", "-m", "aarch64linux", "-static", object_file, "-o", program], check=True)
    subprocess.run(["qemu-aarch64", "-cpu", "cortex-a76", *plugin_words(counts, memory=True), program], check=True)
    executed = parse(counts.read_text())[1].counts
    assert executed.instructions == Counter(
        vfma=2000, vdot=1000, vload=1000, prefetch=1000, int=2000 + 3, branch=1000, load=2, other=1
    )
    assert executed.memory["load_bytes"] == 16 * 1000 + 2 * 8
    assert executed.memory["store_bytes"] == 0
    assert executed.memory["l1_misses"] >= 1000
    assert executed.memory["l1_misses"] == executed.memory["l2_misses"]
