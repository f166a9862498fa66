"""Reads the disassembly that Mesa's ir3 compiler prints (``IR3_SHADER_DEBUG=cs,disasm``)."""

import re

from tools.gpu_stats.stats import Counts, KernelStats, split_at_loops

_INSTRUCTION = re.compile(r"\s*((?:\([a-z0-9]+\))*)\s*([a-z][a-z0-9_]*(?:\.[a-z0-9_.]+)?)(\s.*)?$")
_LABEL = re.compile(r"\s*(l\d+):")
_SUMMARY = re.compile(r"; CL prog \d+/\d+: \d+ instr")


def parse(text: str) -> KernelStats | None:
    """The last kernel in the compiler's output: it prints each twice, first for a launch with a global offset. None
    where there is none."""
    lines = [line.removeprefix("MESA: info: ").rstrip() for line in text.splitlines()]
    ends = [place for place, line in enumerate(lines) if _SUMMARY.match(line)]
    if not ends:
        return None
    end = ends[-1]
    last = max(place for place in range(end) if (found := _INSTRUCTION.match(lines[place])) and found[2] == "end")
    first = last
    while _INSTRUCTION.match(lines[first - 1]) or _LABEL.match(lines[first - 1]):
        first -= 1
    counts, labels, jumps = [], {}, []
    for line in lines[first : last + 1]:
        if label := _LABEL.match(line):
            labels[label[1]] = len(counts)
            continue
        instruction = _INSTRUCTION.match(line)
        assert instruction is not None
        target = re.search(r"#(l\d+)", instruction[3] or "")
        if target and target[1] in labels:
            jumps.append((len(counts), labels[target[1]]))
        counts.append(_counts(instruction[1], instruction[2]))
    once, loops = split_at_loops(counts, jumps)
    said = " ".join(lines[end : end + 5])
    spills = sum(part.spills for part in (once, *loops))
    return KernelStats(
        _number(r"(\d+) instr", said),
        _number(r"(\d+) full", said),
        _number(r"(\d+) max_waves", said),
        bool(spills),
        once,
        tuple(loops),
    )


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found is not None, pattern
    return int(found[1])


def _counts(flags: str, operation: str) -> Counts:
    repeats = 1 + sum(int(count) for count in re.findall(r"\(rpt(\d)\)", flags))
    waits = sum(int(count) for count in re.findall(r"\(nop(\d)\)", flags))
    name = operation.split(".")[0]
    return Counts(
        slots=repeats + waits,
        mads=repeats * (name == "mad" and ".f" in operation),
        reads=name in ("ldg", "ldib", "isam", "sam"),
        writes=name in ("stg", "stib"),
        spills=name in ("ldp", "stp"),
    )
