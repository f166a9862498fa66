"""Reads the disassembly that Mesa's Valhall compiler prints (``BIFROST_MESA_DEBUG=shaders,shaderdb``)."""

import re

from tools.gpu_stats.stats import Counts, KernelStats, split_at_loops

_SUMMARY = re.compile(r"SHADER-DB:.* (\d+) inst, .* (\d+) threads, \d+ loops, (\d+):(\d+) spills:fills")
_INSTRUCTION = re.compile(r"   ([A-Z][A-Z0-9_]*)((?:\.[a-z0-9_]+)*)( .*)?$")
_FULL_REGISTERS = 32
"""Registers of a thread where all threads run. Those that need more have twice as many, and half of the threads run."""


def parse(text: str) -> KernelStats | None:
    """The last kernel in the compiler's output: it prints each twice, first for a launch with a global offset. None
    where there is none."""
    summaries = list(_SUMMARY.finditer(text))
    if not summaries:
        return None
    said = summaries[-1]
    counts, jumps = [], []
    for line in text[: said.start()].splitlines():
        if re.match(r"block\d+ \{", line):  # the compiler's own form of the code; the machine's follows it
            counts, jumps = [], []
        instruction = _INSTRUCTION.match(line)
        if not instruction or " = " in line:
            continue
        back = re.search(r"offset:-(\d+)", line)
        if back and instruction[1].startswith(("BRANCH", "JUMP")):
            jumps.append((len(counts), max(0, len(counts) + 1 - int(back[1]))))
        counts.append(_counts(instruction[1], line))
    once, loops = split_at_loops(counts, jumps)
    threads = int(said[2])
    registers = _FULL_REGISTERS * (1 if threads == _ALL_THREADS else 2)
    return KernelStats(int(said[1]), registers, threads, said[3] != "0" or said[4] != "0", once, tuple(loops))


_ALL_THREADS = 2


def _counts(operation: str, line: str) -> Counts:
    on_stack = "thread_local_pointer" in line
    return Counts(
        slots=1,
        mads=operation in ("FMA", "FMA_RSCALE"),
        reads=operation.startswith(("LOAD", "LD_", "TEX")) and not on_stack and operation != "LD_BUFFER",
        writes=operation.startswith("STORE") and not on_stack,
        spills=on_stack,
    )
