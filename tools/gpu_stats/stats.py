"""What a compiler says of a kernel, counted by loop."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import add


@dataclass(frozen=True)
class Counts:
    """Instructions of a piece of code that is run from its begin to its end."""

    slots: float = 0
    """Issue slots: instructions with their repeats and waits."""
    mads: float = 0
    """Multiply-adds of numbers; one slot is one number's on Adreno, up to two numbers' on Mali."""
    reads: float = 0
    """Loads from memory that other work-items share: buffers and images."""
    writes: float = 0
    spills: float = 0
    """Loads and stores of registers that did not suffice."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*map(add, vars(self).values(), vars(other).values()))

    def __mul__(self, times: float) -> "Counts":
        return Counts(*[value * times for value in vars(self).values()])

    @property
    def memory(self) -> float:
        """Memory operations."""
        return self.reads + self.writes


@dataclass(frozen=True)
class KernelStats:
    """A kernel as it was compiled."""

    instructions: int
    registers: int
    """Adreno: of four numbers of 32 bits, for a work-item. Mali: 32 where a core runs all its threads, 64 for half of
    them."""
    waves: int
    """How many waves (Mali: threads of a group) a core keeps at once."""
    spilled: bool
    once: Counts
    """What lies outside of loops."""
    loops: tuple[Counts, ...]
    """Bodies of the innermost loops, in the order of the text."""

    def run(self, trips: Sequence[float]) -> Counts:
        """What a work-item executes whose loops run so many times. ValueError where it is not a number for each
        loop."""
        if len(trips) != len(self.loops):
            raise ValueError(f"{len(self.loops)} loops were compiled, and trips are said of {len(trips)}")
        return sum((body * count for body, count in zip(self.loops, trips, strict=True)), self.once)


def split_at_loops(instructions: Sequence[Counts], jumps: Sequence[tuple[int, int]]) -> tuple[Counts, list[Counts]]:
    """Sums outside and inside of loops. ``jumps`` are (place of the jump, place that it goes back to); an instruction
    belongs to the innermost loop around it, and loops around others are not told apart from what is outside."""
    spans = sorted({(begin, end) for end, begin in jumps})
    innermost = [
        (begin, end)
        for begin, end in spans
        if not any((begin, end) != other and begin <= other[0] and other[1] <= end for other in spans)
    ]
    bodies = [sum(instructions[begin : end + 1], Counts()) for begin, end in innermost]
    inside = {place for begin, end in innermost for place in range(begin, end + 1)}
    once = sum((counts for place, counts in enumerate(instructions) if place not in inside), Counts())
    return once, bodies
