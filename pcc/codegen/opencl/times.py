"""What calls take on a phone's GPU, in seconds: what the choice between it and the processor goes by.

There is no phone to time on: these are costs (`profiles.py`) times what is *assumed* below. A call takes what all its
items together take on all lanes, or, where they are too few to hide each other's waiting, what one of them takes by
itself, or what its weights take from memory; and its launch.
"""

from math import prod
from typing import Any

from torch.fx import GraphModule

from pcc.codegen.gpu_backend import Crossing
from pcc.codegen.loops import loops_of, memory_seconds
from pcc.codegen.opencl.profiles import DeviceWork, GpuProfile
from pcc.codegen.program import Call, Program
from pcc.ir.annotations import KernelChoice, annotation
from pcc.ir.graph import shape_of

LAUNCH_SECONDS = 10e-6
"""From one call of the queue to the next: tens of microseconds are usual."""

CYCLES_ALONE = 8.0
"""Of a slot, where no other wave uses the time that it waits."""

CROSSING = Crossing(wait=100e-6, copy=20e-6, byte=1 / 4e9)


def node_seconds(graph_module: GraphModule, program: Program[Any], profile: GpuProfile) -> dict[str, float]:
    """By the names of nodes that have calls."""
    calls: dict[str, list[Call[Any]]] = {}
    for call in program.calls:
        calls.setdefault(call.node, []).append(call)
    nodes = {node.name: node for node in graph_module.graph.nodes if node.op == "call_function"}
    found: dict[str, float] = {}
    for name, of_node in calls.items():
        slots, items = 0.0, 1
        if name in nodes and (choice := annotation(nodes[name], KernelChoice)):
            most = max(prod(call.range.global_size) for call in of_node if call.range)
            slots, items = choice.cost, min(most, prod(shape_of(nodes[name])))
        elif name in nodes:
            loops = loops_of(nodes[name])
            turns, items = loops.items * loops.steps, loops.items
            work = DeviceWork(mads=turns, memory=turns * loops.reads, steps=turns, outputs=items, items=items)
            slots = profile.cycles(work)
        busy = max(slots / profile.lanes, slots / items * CYCLES_ALONE) / profile.clock
        found[name] = len(of_node) * LAUNCH_SECONDS + max(busy, memory_seconds(program, of_node))
    return found
