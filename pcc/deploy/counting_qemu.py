"""An emulated Cortex-A76 that writes down what is executed between readings of the clock, by `insn_plugin.c`."""

import functools
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pcc.deploy.qemu import Qemu
from pcc.errors import PccError
from pcc.package import Package
from pcc.zig import run_tool, zig

CPU = "cortex-a76"
MEMORY = ("load_bytes", "store_bytes", "l1_misses", "l2_misses")
"""What the plugin counts beside instructions where it is asked to: bytes, and misses of modelled caches of 64 and 512
KiB."""


@dataclass(frozen=True)
class Counts:
    """What was executed in one interval, or in several."""

    instructions: Counter[str] = field(default_factory=Counter)
    """By class: vfma, vload, ..."""
    memory: Counter[str] = field(default_factory=Counter)
    """By `MEMORY`; empty where only instructions were counted."""

    @property
    def total(self) -> int:
        return self.instructions.total()

    @property
    def vfma(self) -> int:
        return self.instructions["vfma"]

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.instructions + other.instructions, self.memory + other.memory)


@dataclass(frozen=True)
class Interval:
    """What was executed up to a reading of a clock, since the reading before."""

    clock: int
    """Linux's number of it: 1 is monotonic, 3 the thread's processor time."""
    counts: Counts


def parse(text: str) -> list[Interval]:
    """The intervals that the plugin wrote, a line each."""
    intervals = []
    for line in text.splitlines():
        numbers = {name: int(number) for name, number in (field.split("=") for field in line.split())}
        clock = numbers.pop("clock")
        memory = Counter({name: numbers.pop(name) for name in MEMORY if name in numbers})
        intervals.append(Interval(clock, Counts(Counter(numbers), memory)))
    return intervals


def missing() -> str | None:
    """What counting needs and is not there, as a line for people; None if all is there."""
    if complaint := Qemu.missing():
        return complaint
    help_text = subprocess.run(["qemu-aarch64", "-h"], capture_output=True, text=True, check=False).stdout
    return (
        None
        if "-plugin" in help_text
        else "this qemu-aarch64 takes no plugins: Debian's qemu-user of bookworm does (qemu-user-static does not)"
    )


@functools.cache
def _folder() -> "tempfile.TemporaryDirectory[str]":
    """Where the plugin lies; it goes when the process ends."""
    return tempfile.TemporaryDirectory(prefix="pcc-insn-")


@functools.cache
def _plugin() -> Path:
    """The plugin, compiled once a process."""
    library = Path(_folder().name) / "insn_plugin.so"
    run_tool(
        [*zig(), "cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(Path(__file__).with_name("insn_plugin.c"))]
    )
    return library


def plugin_words(counts: Path, memory: bool) -> list[str]:
    """What to give qemu-aarch64 for it to count into a file."""
    return ["-plugin", f"{_plugin()},out={counts}{',memory=on' if memory else ''}"]


class CountingQemu(Qemu):
    """An emulated computer that counts."""

    def __init__(self, counts: Path, memory: bool = False) -> None:
        super().__init__(CPU)
        self._counts, self._memory = counts, memory

    def command(self, program: Path) -> list[str]:
        emulator, *rest = super().command(program)
        return [emulator, *plugin_words(self._counts, self._memory), *rest]


@dataclass(frozen=True)
class Counted:
    """What one layer executes: its kernel (not the copies before it) and the counts of all its calls."""

    kernel: str
    counts: Counts

    @property
    def total(self) -> int:
        return self.counts.total

    @property
    def vfma(self) -> int:
        return self.counts.vfma


def count_package(package: Package, memory: bool = False) -> dict[str, Counted]:
    """What each layer of a package for arm64 executes, on one thread. Raises `PccError` where `missing` says why."""
    if complaint := missing():
        raise PccError(complaint)
    with tempfile.TemporaryDirectory() as folder:
        counts = Path(folder) / "counts"
        calls = CountingQemu(counts, memory).bench(package, warmup=0, runs=1, profile=True).calls
        intervals = parse(counts.read_text())
    # The clock is read as the run starts, as its first call starts, after each call, and as the run ends.
    if len(intervals) != len(calls) + 3:
        raise PccError(
            f"the clock was read {len(intervals)} times for {len(calls)} calls: does this libc read it without a "
            "system call?"
        )
    layers: dict[str, Counted] = {}
    for call, interval in zip(calls, intervals[2:-1], strict=True):
        before = layers[call.layer].counts if call.layer in layers else Counts()
        layers[call.layer] = Counted(call.kernel, before + interval.counts)
    return layers
