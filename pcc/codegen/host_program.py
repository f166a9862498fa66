"""The processor's program beside a GPU's of the same graph: which of its nodes the GPU's may leave to it, and the calls
that do so.

A node is left whole: the steps that the processor's program has for it run in the context's arena, where that program
keeps every value from its first write to its last read. What the GPU computed is copied there before, what it reads is
copied back. So a value that is there stays there for all later steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch.fx import Node

from pcc.codegen.host_kernel import HostKernel, copy_kernel
from pcc.codegen.program import Call, Program, ProgramWriter, View
from pcc.ir.graph import shape_of
from pcc.ir.ops import UNPACK


@dataclass(frozen=True, eq=False)
class HostProgram:
    """See the module's text. The program's memory is planned."""

    program: Program
    isa: str
    """The form of the model that has these steps."""

    @cached_property
    def steps(self) -> Mapping[str, list[int]]:
        """The numbers of each node's calls."""
        found: dict[str, list[int]] = {}
        for index, call in enumerate(self.program.calls):
            found.setdefault(call.node, []).append(index)
        return found

    def objection(self, node: Node) -> str:
        """Why the steps of a node cannot run without others; nothing where they can."""
        if node.name not in self.program.values:
            return "the processor's program has no such layer"
        known = {
            self.program.values[operand.name].buffer
            for operand in operands_of(node)
            if operand.name in self.program.values
        }
        for index in self.steps.get(node.name, []):
            call = self.program.calls[index]
            views = {param: call.args[param.name] for param in call.kernel.params if param.is_pointer}
            read = {view.buffer for param, view in views.items() if isinstance(view, View) and not param.writes}
            if any(self.program.buffers[name].is_of_run for name in read - known):
                return "its kernel reads what another layer's call writes"
            known |= {view.buffer for view in views.values() if isinstance(view, View)}
        value = self.program.values[node.name]
        of_run = self.program.buffers[value.buffer].is_of_run
        return "another layer's call writes it" if of_run and value.buffer not in known else ""

    def barrier(self, node: Node, gpu: Program[Any]) -> str:
        """Why a node's value cannot be copied between the two programs; nothing where it can."""
        of_host, of_gpu = (program.values.get(node.name) for program in (self.program, gpu))
        if not (of_host and of_gpu and of_host.shape == of_gpu.shape == shape_of(node)):
            return "one of the two has a kernel for several layers there"
        if of_host.dtype != of_gpu.dtype:
            return f"the GPU's numbers are {of_gpu.dtype} there, the processor's {of_host.dtype}"
        return ""


def operands_of(node: Node) -> list[Node]:
    """The tensors that a run gives a node: no weights."""
    return [
        operand
        for operand in node.all_input_nodes
        if operand.op == "placeholder" or (operand.op == "call_function" and operand.target is not UNPACK)
    ]


PREFIX = "host:"
"""Of names of the processor's buffers in a GPU's program."""


@dataclass
class HostCalls:
    """Records what a GPU's program leaves to the processor, node by node in the order of the graph."""

    host: HostProgram
    nodes: frozenset[str]
    """Those that are left."""
    there: set[str] = field(default_factory=set[str])
    """The values that the arena holds."""

    def is_read_on_gpu(self, node: Node) -> bool:
        return any(user.name not in self.nodes for user in node.users)

    def record(self, node: Node, gpu: Mapping[str, View], b: ProgramWriter[Any]) -> None:
        """The calls of a node; ``gpu`` has the places of operands and, where the GPU reads it, of the result."""
        for operand in operands_of(node):
            view = self.host.program.values[operand.name]
            if operand.name not in self.there and self.host.program.buffers[view.buffer].is_of_run:
                self._call(copy_kernel(view.dtype, to_gpu=False), {"x": gpu[operand.name], "y": self._view(view, b)}, b)
            self.there.add(operand.name)
        for index in self.host.steps.get(node.name, []):
            self._step(index, b)
        self.there.add(node.name)
        if node.name in gpu:
            result = self.host.program.values[node.name]
            views = {"x": self._view(result, b), "y": gpu[node.name]}
            self._call(copy_kernel(result.dtype, to_gpu=True), views, b)

    def _step(self, index: int, b: ProgramWriter[Any]) -> None:
        """A call of the processor's, with its tensors but not its weights and numbers."""
        call = self.host.program.calls[index]
        views = {
            param: self._view(view, b)
            for param in call.kernel.params
            if isinstance(view := call.args[param.name], View) and self._is_in_arena(view)
        }
        kernel = HostKernel(call.kernel.name, tuple(views), index)
        self._call(kernel, {param.name: view for param, view in views.items()}, b, call.macs, call.dense_macs)

    def _is_in_arena(self, view: View) -> bool:
        buffer = self.host.program.buffers[view.buffer]
        return buffer.is_of_run and buffer.role != "thread"

    def _view(self, view: View, b: ProgramWriter[Any]) -> View:
        """A view of the processor's program in the GPU's."""
        buffer = self.host.program.buffers[view.buffer]
        name = PREFIX + buffer.name
        b.buffers.setdefault(name, replace(buffer, name=name, role="host"))
        return replace(view, buffer=name)

    def _call(
        self,
        kernel: HostKernel,
        views: Mapping[str, View],
        b: ProgramWriter[Any],
        macs: int = 0,
        dense_macs: int = 0,
    ) -> None:
        b.calls.append(Call(kernel, views, 1, b.layer, macs, dense_macs, b.node))
