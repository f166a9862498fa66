"""Graph to a program for a GPU. How an operator becomes layers is `pcc.codegen.lower`'s; who writes them is told
below."""

from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from typing import Any, cast

from torch.fx import GraphModule, Node

from pcc.codegen import layers
from pcc.codegen.family import OPENCL, families
from pcc.codegen.host_program import HostCalls
from pcc.codegen.lower import Lowering, has_planes
from pcc.codegen.opencl.families import DeviceFamily
from pcc.codegen.opencl.families.in_planes import border_of
from pcc.codegen.opencl.kernel import DeviceKernel
from pcc.codegen.opencl.kernels.columns import emit_scan, emit_top_k
from pcc.codegen.opencl.kernels.gather import emit_gather
from pcc.codegen.opencl.kernels.map import COPY, emit_map
from pcc.codegen.opencl.kernels.nms import emit_nms
from pcc.codegen.opencl.kernels.pool import emit_pool
from pcc.codegen.opencl.kernels.products import emit_matmul
from pcc.codegen.opencl.kernels.resize import emit_resize
from pcc.codegen.opencl.kernels.scatter import emit_scatter
from pcc.codegen.opencl.kernels.softmax import emit_softmax
from pcc.codegen.opencl.program import DeviceProgramBuilder
from pcc.codegen.plan_memory import PlanMemory
from pcc.codegen.program import Program, Stage, View
from pcc.dtype import dtype_of
from pcc.ir import ops
from pcc.ir.annotations import KernelChoice, annotation
from pcc.ir.graph import arguments, layer_name, max_batch, shape_of

ALIGNMENT = 512
"""Bytes to which a buffer's start is aligned: CL_DEVICE_MEM_BASE_ADDR_ALIGN of all drivers that we know of."""


def lower_device(graph_module: GraphModule, name: str, host: HostCalls | None = None) -> Program[DeviceKernel]:
    """The planned program of a graph whose kernels are selected for a GPU, but for what ``host`` leaves to the
    processor. Raises `PccError` as `pcc.codegen.lower.lower` does."""
    lowering = DeviceLowering(graph_module, DeviceProgramBuilder(name), host)
    for node in graph_module.graph.nodes:
        lowering.visit(node)
    program = lowering.program()
    if max_batch(graph_module):
        turns = (Stage(0, len(program.calls), at_once=False),)
        program = replace(program, max_batch=max_batch(graph_module), batch_stages=turns)
    return planned(program)


def planned(program: Program[DeviceKernel]) -> Program[DeviceKernel]:
    """The program, its buffers placed where every driver takes them."""
    return PlanMemory(ALIGNMENT)(program)


class DeviceLowering(Lowering):
    """One graph being lowered for a GPU."""

    builder: DeviceProgramBuilder

    def __init__(self, graph_module: GraphModule, builder: DeviceProgramBuilder, host: HostCalls | None) -> None:
        super().__init__(graph_module, builder)
        self.host = host
        self.left: dict[Node, list[Node]] = {}
        """Nodes that the processor computes, by the first of them that follow each other."""
        if host:
            calls = [
                node for node in graph_module.graph.nodes if node.op == "call_function" and node.target != ops.UNPACK
            ]
            for is_left, nodes in groupby(calls, key=lambda node: node.name in host.nodes):
                if is_left:
                    first, *others = nodes
                    self.left[first] = [first, *others]

    def visit(self, node: Node) -> None:
        if self.host is None or node.name not in self.host.nodes:
            super().visit(node)
            return
        self.builder.layer, self.builder.node = layer_name(node), node.name
        for each in self.left.get(node, []):  # all of them now, for what clears borders is the GPU's
            if self.host.is_read_on_gpu(each):
                self.views[each] = self.result(each)
        self.host.record(node, {known.name: view for known, view in self.views.items()}, self.builder)

    def result(self, node: Node) -> View:
        """Planes for what kernels write and read that take them, with the border that these need; else a contiguous
        tensor."""
        of_host = self.host.nodes if self.host else frozenset[str]()
        readers = [user for user in node.users if _takes_planes(user) and user.name not in of_host]
        is_written_so = _takes_planes(node) and node.name not in of_host
        if not has_planes(node) or not (readers or is_written_so):
            return self.tensor(node)
        border = max(
            (
                border_of(arguments(user)["padding"], _border(user) or 0)
                for user in readers
                if arguments(user)["x"] is node
            ),
            default=0,
        )
        return self.builder.bordered(node.name, shape_of(node), border, dtype_of(node.meta["val"].dtype))

    def write(self, layer: Any) -> None:
        _WRITERS[type(layer)](layer, self.builder)

    def write_plain(self, node: Node, y: View, args: dict[str, Any]) -> None:
        _OF_CONTIGUOUS[node.target](self.builder, y, **args)


def _takes_planes(node: Node) -> bool:
    return _border(node) is not None


def _border(node: Node) -> int | None:
    """Of the family that computes a node."""
    choice = annotation(node, KernelChoice)
    family = choice and families(OPENCL).get(choice.family)
    return cast(DeviceFamily, family).border if family else None


def _copy(layer: layers.Copy | layers.Convert, b: DeviceProgramBuilder) -> None:
    emit_map(layer.name, layer.y, [layer.x], COPY, b)


def _fill(layer: layers.Fill, b: DeviceProgramBuilder) -> None:
    emit_map(layer.name, layer.y, [], str(float(layer.value)), b)


def _elementwise(layer: layers.Elementwise, b: DeviceProgramBuilder) -> None:
    emit_map(layer.name, layer.y, layer.inputs, layer.expression, b)


_WRITERS: dict[type, Callable[[Any, DeviceProgramBuilder], None]] = {
    layers.Convert: _copy,
    layers.Copy: _copy,
    layers.Elementwise: _elementwise,
    layers.Fill: _fill,
    layers.Gather: emit_gather,
    layers.MatMul: emit_matmul,
    layers.Pool2d: emit_pool,
    layers.Resize2d: emit_resize,
    layers.Softmax: emit_softmax,
}
"""What records the calls of layers that one kernel computes."""

_OF_CONTIGUOUS: dict[Any, Callable[..., None]] = {
    ops.NMS: emit_nms,
    ops.SCAN: emit_scan,
    ops.SCATTER: emit_scatter,
    ops.TOP_K: emit_top_k,
}
"""What records the calls of operators of contiguous tensors, by their arguments."""
