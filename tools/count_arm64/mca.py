"""Cycles of kernels' inner loops by llvm-mca: what a core's pipelines need when all data is in the first cache."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel

CORES = {"neoverse-n1": "cortex-a76", "cortex-a55": "cortex-a55", "neoverse-v1": "cortex-x1"}
"""LLVM's models of cores, and the processor that code is compiled for: the first is a Cortex-A76's core, the third a
Cortex-X1's."""
ITERATIONS = 200
OLDEST, NEWEST = 17, 23
"""Releases of LLVM: older ones time the first and third core as if they were a Cortex-A57."""
FEWEST = 4
"""Vector multiply-adds of a loop worth a line."""

_LABEL = re.compile(r"(\.LBB\d+_\d+):")
_INSTRUCTION = re.compile(r"\t([a-z][a-z0-9.]*)(?:\t(.*))?$")


class Loop(BaseModel):
    """An inner loop of a kernel, or one case of an inner loop that jumps by a table."""

    kernel: str
    label: str
    instructions: int
    fmas: int
    loads: int
    core: str
    cycles: float
    """Of one iteration on the core."""


def mca() -> str | None:
    """llvm-mca's name here; None where there is none that knows the cores."""
    names = [f"llvm-mca-{release}" for release in range(NEWEST, OLDEST - 1, -1)]
    return next((name for name in names if shutil.which(name)), None)


def missing() -> str | None:
    """What is needed and not there, as a line for people."""
    return None if mca() else f"no llvm-mca of LLVM {OLDEST} or later found: install it (apt-get install llvm-19)"


def price(kernels: Sequence[tuple[str, Path]], core: str) -> list[Loop]:
    """The inner loops that multiply of kernels (name, assembly), with their cycles on a core; those with most
    multiply-adds first."""
    program = mca()
    assert program is not None, missing()
    regions = [
        (name, label, body)
        for name, path in kernels
        for label, body in inner_loops(path.read_text())
        if count(body, "fml") >= FEWEST
    ]
    if not regions:
        return []
    text = "".join(
        f"# LLVM-MCA-BEGIN {place}\n" + "\n".join(body) + f"\n# LLVM-MCA-END {place}\n"
        for place, (_, _, body) in enumerate(regions)
    )
    words = [
        program,
        "-mtriple=aarch64-linux-gnu",
        f"-mcpu={core}",
        f"-iterations={ITERATIONS}",
        "-mattr=+dotprod,+fullfp16",
    ]
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=True)
    loops = [
        Loop(
            kernel=name,
            label=label,
            instructions=len(body),
            fmas=count(body, "fml"),
            loads=count(body, "ld"),
            core=core,
            cycles=cycles / ITERATIONS,
        )
        for (name, label, body), cycles in zip(regions, total_cycles(done.stdout), strict=True)
    ]
    return sorted(loops, key=lambda loop: -loop.fmas)


def count(body: Sequence[str], prefix: str) -> int:
    """Instructions of a body that begin so: ``fml`` for vector multiply-adds, ``ld`` for loads."""
    return sum(line.strip().startswith(prefix) for line in body)


def total_cycles(report: str) -> list[int]:
    """Of each region of llvm-mca's report, all iterations together."""
    return [int(cycles) for cycles in re.findall(r"^Total Cycles:\s+(\d+)", report, re.MULTILINE)]


def inner_loops(assembly: str) -> Iterator[tuple[str, list[str]]]:
    """(label, instructions) of each loop without another one inside, in LLVM's assembly. Of a loop that jumps by a
    table, its blocks instead: only one of them runs in an iteration.
    """
    lines = [line.split("//")[0].rstrip() for line in assembly.splitlines()]
    lines = [line for line in lines if _LABEL.match(line) or _INSTRUCTION.match(line)]
    places = {match[1]: place for place, line in enumerate(lines) if (match := _LABEL.match(line))}
    loops = []
    for end, line in enumerate(lines):
        target = re.search(r"(\.LBB\d+_\d+)$", line)
        if target and (begin := places.get(target[1], end)) < end:
            loops.append((begin, end))
    for begin, end in loops:
        if any(begin <= other and stop <= end and (other, stop) != (begin, end) for other, stop in loops):
            continue
        body = lines[begin : end + 1]
        if any(re.match(r"\tbr\t", line) for line in body):
            yield from _blocks(body)
        else:
            yield body[0].rstrip(":"), [line for line in body if not _LABEL.match(line)]


def _blocks(body: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The straight pieces between labels."""
    label, block = body[0].rstrip(":"), []
    for line in body[1:]:
        if match := _LABEL.match(line):
            if block:
                yield label, block
            label, block = match[1], []
        else:
            block.append(line)
    if block:
        yield label, block
