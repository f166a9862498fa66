"""plan-memory: every buffer of a program gets its place: in one arena, in each thread's own memory, or in what all
contexts share."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pcc.codegen.kernel import READ_SLACK
from pcc.codegen.program import ALIGNMENT, Buffer, K, Program, View
from pcc.errors import PccError


@dataclass(frozen=True)
class Lifetime:
    """The calls during which a buffer holds something: from its first writer (-1 for inputs) to its last reader (one
    past the end for outputs)."""

    first: int
    last: int

    def overlaps(self, other: "Lifetime") -> bool:
        return self.first <= other.last and other.first <= self.last


_ALWAYS = Lifetime(0, 0)
"""Of buffers that all last as long as each other."""


@dataclass(frozen=True)
class PlanMemory:
    """Places all buffers in one arena: largest first, each at the lowest offset that no buffer alive at the same time
    covers."""

    alignment: int = ALIGNMENT
    """Bytes to which a buffer's start is aligned."""

    name: ClassVar[str] = "plan-memory"
    level: ClassVar[str] = "program"
    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.alignment < ALIGNMENT or self.alignment % ALIGNMENT:
            raise PccError(
                f"plan-memory{{alignment={self.alignment}}}: kernels take buffers that begin at multiples of "
                f"{ALIGNMENT} bytes: give a multiple of it"
            )

    def __call__(self, program: Program[K]) -> Program[K]:
        lifetimes = buffer_lifetimes(program)
        of_threads = {name for name in lifetimes if program.buffers[name].role == "thread"}
        thread, thread_bytes = self._place(program, {name: lifetimes[name] for name in of_threads})
        arena, arena_bytes = self._place(
            program, {name: life for name, life in lifetimes.items() if name not in of_threads}
        )
        prepared, prepared_bytes = self._place(
            program, {name: _ALWAYS for name, buffer in program.buffers.items() if buffer.role == "prepared"}
        )
        buffers = {**program.buffers, **arena, **thread, **prepared}
        return replace(
            program, buffers=buffers, arena_bytes=arena_bytes, thread_bytes=thread_bytes, prepared_bytes=prepared_bytes
        )

    def _place(self, program: Program[K], lifetimes: Mapping[str, Lifetime]) -> tuple[dict[str, Buffer], int]:
        """The buffers with their offsets in one block of memory, and its size."""
        placed: list[Buffer] = []
        for name in sorted(lifetimes, key=lambda name: (-program.buffers[name].all_bytes, lifetimes[name].first, name)):
            alive = sorted((other for other in placed if lifetimes[name].overlaps(lifetimes[other.name])), key=_start)
            placed.append(
                replace(program.buffers[name], offset=self._lowest_gap(alive, self._room(program.buffers[name])))
            )
        return {buffer.name: buffer for buffer in placed}, max(
            (_start(buffer) + self._room(buffer) for buffer in placed), default=0
        )

    def _room(self, buffer: Buffer) -> int:
        """Bytes a buffer takes: itself and what may be read past its end, up to the next aligned start."""
        return -(-(buffer.all_bytes + READ_SLACK) // self.alignment) * self.alignment

    def _lowest_gap(self, alive: list[Buffer], room: int) -> int:
        """The lowest offset at which ``room`` bytes are free between buffers sorted by offset."""
        offset = 0
        for other in alive:
            if offset + room <= _start(other):
                break
            offset = max(offset, _start(other) + self._room(other))
        return offset


def buffer_lifetimes(program: Program[Any]) -> Mapping[str, Lifetime]:
    """The lifetime of each buffer that runs fill. A buffer that no call touches and that is no port has none."""
    uses: dict[str, list[int]] = {}
    for index, call in enumerate(program.calls):
        for value in call.args.values():
            if isinstance(value, View) and program.buffers[value.buffer].is_of_run:
                uses.setdefault(value.buffer, []).append(index)
    touched = program.touched_stages()
    for port in program.inputs:  # copied before a stage, and again at its beginning where the images take turns
        begin = program.stages[touched[port.buffer][0]].begin
        uses.setdefault(port.buffer, []).extend((begin - 1, begin))
    for port in program.outputs:
        uses.setdefault(port.buffer, []).append(program.stages[touched[port.buffer][-1]].end)
    for name, places in touched.items():
        for stage in (program.stages[place] for place in places if program.buffers[name].images > 1):
            if not stage.at_once:  # while the images take turns, what each of them leaves to other stages stays
                uses[name] += [stage.begin, stage.end - 1]
    return {name: Lifetime(min(calls), max(calls)) for name, calls in uses.items()}


def memory_lower_bound(program: Program[Any]) -> int:
    """Bytes alive at the worst moment: no arena can be smaller."""
    lifetimes = {
        name: life for name, life in buffer_lifetimes(program).items() if program.buffers[name].role != "thread"
    }
    moments = range(-1, len(program.calls) + 1)
    return max(
        (
            sum(
                program.buffers[name].all_bytes for name, life in lifetimes.items() if life.first <= moment <= life.last
            )
            for moment in moments
        ),
        default=0,
    )


def _start(buffer: Buffer) -> int:
    assert buffer.offset is not None
    return buffer.offset
