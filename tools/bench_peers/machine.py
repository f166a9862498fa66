"""The processor that figures belong to, and whether it had nothing else to do."""

import os
import re
from pathlib import Path

from pydantic import BaseModel

from pcc.target import cpu_fields, processor_name

FEATURES = {
    "avx2": "AVX2",
    "fma": "FMA",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "avx512_fp16": "AVX-512 FP16",
    "amx_tile": "AMX",
    "asimd": "NEON",
    "asimddp": "dot product",
    "i8mm": "I8MM",
    "sve": "SVE",
}
"""Flags of /proc/cpuinfo, and what people call them."""


class Machine(BaseModel):
    """A processor as /proc shows it."""

    processor: str
    features: list[str]
    cores: int
    pinned: int
    """The core that everything runs on."""
    siblings: list[int]
    """Other hardware threads of that core, as far as the kernel knows."""
    virtual: bool = False
    """Whether a hypervisor shows the cores, and may hide which of them are one."""

    @property
    def slug(self) -> str:
        """For file names."""
        return re.sub("[^a-z0-9]+", "-", self.processor.lower()).strip("-")

    def __str__(self) -> str:
        return f"{self.processor} ({', '.join(self.features)})"

    @property
    def placement(self) -> str:
        """Where the thread runs, and what the other cores are."""
        if self.cores == 1:
            return "the only core"
        shared = (
            f"; {', '.join(map(str, self.siblings))} is the same core's other hardware thread" if self.siblings else ""
        )
        hidden = (
            "; a virtual machine, which may hide that cores are hardware threads of one"
            if self.virtual and not self.siblings
            else ""
        )
        return f"core {self.pinned} of {self.cores}, the others left idle{shared}{hidden}"


def this_machine() -> Machine:
    """What this program runs on; the last core that it may use is the pinned one, since the first one takes most
    interrupts."""
    cores = sorted(os.sched_getaffinity(0))
    pinned = cores[-1]
    siblings = Path(f"/sys/devices/system/cpu/cpu{pinned}/topology/thread_siblings_list")
    shared = cpu_list(siblings.read_text()) if siblings.is_file() else [pinned]
    cpuinfo = Path("/proc/cpuinfo").read_text()
    processor, features = describe(cpuinfo)
    others = [core for core in shared if core != pinned]
    return Machine(
        processor=processor,
        features=features,
        cores=len(cores),
        pinned=pinned,
        siblings=others,
        virtual=" hypervisor " in cpuinfo,
    )


def describe(cpuinfo: str) -> tuple[str, list[str]]:
    """(name, features) of the first processor of /proc/cpuinfo."""
    fields = cpu_fields(cpuinfo)
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return processor_name(fields), [title for flag, title in FEATURES.items() if flag in flags]


def cpu_list(text: str) -> list[int]:
    """The kernel's notation of sets of cores: ``0-2,5`` is 0, 1, 2 and 5."""
    ranges = [part.split("-") for part in text.strip().split(",")]
    return [core for bounds in ranges for core in range(int(bounds[0]), int(bounds[-1]) + 1)]


class Watch:
    """How busy the machine was with other things since the watch was made."""

    def __init__(self, pinned: int) -> None:
        self._pinned = pinned
        self._start = _times()

    def others(self) -> float:
        """Part of the time, 0 to 1, that the busiest other core worked, or that the host took the pinned core away."""
        now = _times()
        parts = [0.0]
        for core, (busy, stolen, total) in now.items():
            busy_before, stolen_before, total_before = self._start[core]
            gone = stolen - stolen_before if core == self._pinned else busy - busy_before
            parts.append(gone / max(1, total - total_before))
        return max(parts)


def _times() -> dict[int, tuple[int, int, int]]:
    """For each core: ticks spent working, stolen by the host, and all, since the machine started."""
    found = {}
    for line in Path("/proc/stat").read_text().splitlines():
        if match := re.match(r"cpu(\d+) (.*)", line):
            user, nice, system, idle, wait, interrupt, soft, stolen = map(int, match[2].split()[:8])
            busy = user + nice + system + interrupt + soft + stolen
            found[int(match[1])] = (busy, stolen, busy + idle + wait)
    return found
