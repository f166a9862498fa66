"""Which layers a GPU's program leaves to the processor, by what they take on both and what the way between them takes.

Convolutions, pooling and resizing stay on the GPU unless somebody asks: a network that is better off without it there
is better off on the processor as a whole. Of the others neighbours may go together, and then copy only what crosses
their ends: a shortest path over the order of calls finds the best of all such choices.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby
from math import ceil, inf
from typing import Any

from torch.fx import GraphModule, Node

from pcc.codegen.gpu_backend import Crossing, GpuBackend
from pcc.codegen.host_program import HostProgram, operands_of
from pcc.codegen.loops import loops_of, memory_seconds
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import Program
from pcc.dtype import FLOAT32
from pcc.errors import PccError
from pcc.ir.annotations import KernelChoice, OnProcessor, annotation
from pcc.ir.graph import layer_name
from pcc.ir.ops import CONV2D, POOL2D, RESIZE2D, UNPACK

STAY = (CONV2D, POOL2D, RESIZE2D)

MARGIN = 2.0
"""How many times as long the GPU has to take before costs leave something to the processor: they are rough."""

NONE = "none"
"""Asks that all layers stay on the GPU."""


@dataclass(frozen=True, eq=False)
class Sides:
    """The same graph for a GPU and for its processor, with the programs of each alone."""

    gpu: GraphModule
    gpu_program: Program[Any]
    processor: GraphModule
    host: HostProgram
    machine: Machine
    costs_per_second: float


def place_layers(
    sides: Sides, backend: GpuBackend, profile: str, asked: Sequence[str] | None
) -> dict[str, OnProcessor]:
    """The nodes that the processor computes, by their names. ``asked`` are names of layers, or globs, or `NONE`; if
    None, costs choose. `PccError` for a name that no layer has, and for a layer that cannot be left to the
    processor."""
    order = _Order.of(sides, backend.seconds(sides.gpu, sides.gpu_program, profile), backend.crossing(profile))
    stretches = order.cheapest() if asked is None else order.asked_for(asked)
    return {
        node.name: OnProcessor(number, each.gpu, each.processor, each.crossing, asked is not None)
        for number, each in enumerate(stretches)
        for node in order.nodes[each.begin : each.end]
    }


def _processor_seconds(node: Node, of_processor: Node | None, sides: Sides) -> float:
    """What a node takes on one thread of the processor."""
    program, steps = sides.host.program, sides.host.steps.get(node.name, [])
    if not steps:
        return 0.0
    choice = of_processor and annotation(of_processor, KernelChoice)
    if choice:
        memory = memory_seconds(program, [program.calls[step] for step in steps])
        return max(choice.cost / sides.costs_per_second, memory)
    loops, lanes = loops_of(node), sides.machine.isa.lanes(FLOAT32)
    turns = ceil(loops.items / lanes) * loops.steps
    work = Work(crossing=turns * loops.reads, updates=turns, branches=turns, stores=ceil(loops.items / lanes))
    return sides.machine.cycles(work) / sides.costs_per_second


@dataclass(frozen=True)
class Stretch:
    """Calls [begin, end) of a graph, and what they take, in seconds."""

    begin: int
    end: int
    gpu: float
    processor: float
    crossing: float
    """If the processor computes them: infinite where a value cannot be copied."""


@dataclass(frozen=True)
class _Order:
    """The calls of a graph in their order. Stretches are [begin, end) of them."""

    nodes: Sequence[Node]
    gpu: Sequence[float]
    processor: Sequence[float]
    objections: Sequence[str]
    """Why the processor cannot compute a node by itself; nothing where it can."""
    barriers: Mapping[Node, str]
    """Why a value cannot be copied between the two; nothing where it can."""
    nbytes: Mapping[Node, int]
    has_steps: Mapping[Node, bool]
    """Whether the processor computes something for a node; others are views of what is there."""
    crossing: Crossing

    @staticmethod
    def of(sides: Sides, seconds: Mapping[str, float], crossing: Crossing) -> "_Order":
        calls = [node for node in sides.gpu.graph.nodes if node.op == "call_function" and node.target is not UNPACK]
        others = {node.name: node for node in sides.processor.graph.nodes}
        values = [node for node in sides.gpu.graph.nodes if node.op == "placeholder"] + calls
        return _Order(
            calls,
            [seconds.get(node.name, 0.0) for node in calls],
            [_processor_seconds(node, others.get(node.name), sides) for node in calls],
            [
                sides.host.objection(others[node.name]) if node.name in others else "the processor's graph lacks it"
                for node in calls
            ],
            {node: sides.host.barrier(node, sides.gpu_program) for node in values},
            {
                node: sides.gpu_program.values[node.name].nbytes if node.name in sides.gpu_program.values else 0
                for node in values
            },
            {node: bool(sides.host.steps.get(node.name)) for node in calls},
            crossing,
        )

    def stretches(self, begin: int) -> Iterator[Stretch]:
        """Those that begin with a call, as far as the processor can compute them."""
        inside: set[Node] = set()
        outside_users: dict[Node, int] = {}
        copied: set[Node] = set()
        gpu = processor = 0.0
        for end, node in enumerate(self.nodes[begin:], begin + 1):
            if self.objections[end - 1]:
                return
            for operand in operands_of(node):
                if operand not in inside:
                    copied.add(operand)
                    continue
                outside_users[operand] -= 1
                if not outside_users[operand]:
                    copied.discard(operand)
            inside.add(node)
            outside_users[node] = len(node.users)
            if outside_users[node]:
                copied.add(node)
            gpu, processor = gpu + self.gpu[end - 1], processor + self.processor[end - 1]
            yield Stretch(begin, end, gpu, processor, self._between(begin, end, copied))

    def _between(self, begin: int, end: int, copied: set[Node]) -> float:
        if any(self.barriers[node] for node in copied):
            return inf
        works_before = begin > 0 and end < len(self.nodes)  # in the end the GPU is waited for anyway
        waits = self.crossing.wait if works_before else 0.0
        nbytes = sum(self.nbytes[node] for node in copied)
        return waits + len(copied) * self.crossing.copy + nbytes * self.crossing.byte

    def cheapest(self) -> list[Stretch]:
        """The stretches with which all takes least time."""
        count = len(self.nodes)
        best: list[float] = [0.0] * (count + 1)
        came: list[Stretch | None] = [None] * (count + 1)
        for begin in range(count):
            if best[begin] > best[begin + 1]:
                best[begin + 1], came[begin + 1] = best[begin], None
            for stretch in self.stretches(begin):
                if self.nodes[stretch.end - 1].target in STAY:
                    break
                gain = best[begin] + stretch.gpu / MARGIN - stretch.processor - stretch.crossing
                if gain > best[stretch.end]:
                    best[stretch.end], came[stretch.end] = gain, stretch
        found: list[Stretch] = []
        end = count
        while end > 0:
            stretch = came[end]
            if stretch:
                found.append(stretch)
            end = stretch.begin if stretch else end - 1
        return found[::-1]

    def asked_for(self, asked: Sequence[str]) -> list[Stretch]:
        """The stretches that are the layers of those names."""
        if list(asked) == [NONE]:
            return []
        wanted = self._named(asked)
        if all(wanted):
            raise PccError("all layers would be left to the processor: compile without code for a GPU")
        found: list[Stretch] = []
        begin = 0
        for is_wanted, places in groupby(wanted):
            end = begin + len(list(places))
            if is_wanted:
                found.append(next(stretch for stretch in self.stretches(begin) if stretch.end == end))
            begin = end
        for begin in (stretch.begin for stretch in found if stretch.crossing == inf):
            nodes = [*operands_of(self.nodes[begin]), *self.nodes[begin:]]
            reason = next(self.barriers[node] for node in nodes if self.barriers[node])
            name = layer_name(self.nodes[begin])
            raise PccError(f"layer '{name}' cannot be left to the processor without others: {reason}")
        return found

    def _named(self, asked: Sequence[str]) -> list[bool]:
        """Which nodes are asked for; those that only look at their results are, too."""
        names = [layer_name(node) for node in self.nodes]
        for pattern in asked:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise PccError(f"no layer is named '{pattern}' (pcc inspect MODEL lists them)")
        wanted: dict[Node, bool] = {}
        for node, name, objection in zip(self.nodes, names, self.objections, strict=True):
            wanted[node] = any(fnmatchcase(name, pattern) for pattern in asked)
            if wanted[node] and objection:
                raise PccError(f"layer '{name}' cannot be left to the processor: {objection}")
            operands = operands_of(node)
            if operands and not self.has_steps[node] and not objection:
                wanted[node] |= all(wanted.get(operand) for operand in operands)
        return list(wanted.values())
