"""select-kernels: each convolution gets the cheapest kernel family that can run it, and a weight packed for it."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult

from pcc.codegen.isa import isa_named
from pcc.codegen.kernels.conv_dense import cost_conv_dense
from pcc.codegen.kernels.conv_sparse import cost_conv_sparse
from pcc.codegen.layers import Conv2d
from pcc.codegen.lower import bound_arguments, geometry_of, shape_of
from pcc.codegen.program import View, contiguous_strides
from pcc.ir.activation import Activation
from pcc.ir.annotations import KernelChoice, annotate, carry
from pcc.ir.constants import add_constant, constant_value
from pcc.ir.ops import CONV2D, PATTERN_CONV2D
from pcc.sparsity.detect import detect_structure
from pcc.sparsity.fkw import FKW


@dataclass(frozen=True)
class SelectKernels:
    """Gives each convolution its fastest kernel family by cost model; weights of sparse kernels become FKW.

    The structure is looked for in the zeros of the weight, so it does not matter which tool pruned it. A sparse kernel that would lose to the
    dense one is not chosen, and the reason is recorded.
    """

    isa: str = "neon"
    """The instruction set the costs are for."""

    name: ClassVar[str] = "select-kernels"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: GraphModule) -> PassResult:
        lanes = isa_named(self.isa).lanes
        modified = False
        for node in list(graph_module.graph.nodes):
            if node.op == "call_function" and node.target == CONV2D:
                modified |= _select(graph_module, node, lanes)
        graph_module.graph.eliminate_dead_code()
        graph_module.delete_all_unused_submodules()
        graph_module.recompile()
        return PassResult(graph_module, modified)


def _select(graph_module: GraphModule, node: Node, lanes: int) -> bool:
    """Annotates the choice for one convolution; True if its weight was packed."""
    arguments = bound_arguments(node)
    weight = constant_value(graph_module, arguments["weight"]).numpy()
    if arguments["groups"] > 1 and weight.shape[1] == 1:
        annotate(node, KernelChoice("conv-depthwise", "one input channel a filter"))
        return False
    found = detect_structure(weight, arguments["groups"])
    if isinstance(found, str):
        annotate(node, KernelChoice("conv-dense", found))
        return False
    packed = found.pack(weight)
    dense_cost, sparse_cost = (cost(_layer(node, arguments, w), lanes) for cost, w in ((cost_conv_dense, weight), (cost_conv_sparse, packed)))
    ratio = dense_cost / sparse_cost
    if ratio <= 1:
        annotate(node, KernelChoice("conv-dense", f"a sparse kernel would take {1 / ratio:.2f}x the time"))
        return False
    sparse = _pack(graph_module, node, arguments, packed)
    annotate(sparse, KernelChoice("conv-sparse", f"{ratio:.2f}x faster than dense by cost model"))
    return True


def _layer(node: Node, arguments: dict[str, Any], weight: np.ndarray | FKW) -> Conv2d:
    """The convolution as cost models see it: sizes, not places."""

    def view(value: Node | None) -> View | None:
        return None if value is None else View(value.name, shape_of(value), contiguous_strides(shape_of(value)))

    x, y = view(arguments["x"]), view(node)
    assert x is not None
    assert y is not None
    geometry = geometry_of(arguments, (weight.shape[2], weight.shape[3]))
    return Conv2d(node.name, x, y, weight, None, geometry, arguments["groups"], view(arguments["residual"]), Activation.parse(arguments["activation"]))


def _pack(graph_module: GraphModule, node: Node, arguments: dict[str, Any], packed: FKW) -> Node:
    """Replaces ``pcc::conv2d`` by ``pcc::pattern_conv2d`` with the packed arrays as constants."""
    arrays = {
        "weight": packed.weight,
        "patterns": packed.patterns,
        "reorder": packed.reorder,
        "offset": packed.offset,
        "index": packed.index,
        "kernel_stride": packed.stride,
    }
    stem = str(arguments["weight"].target)
    constants = {name: add_constant(graph_module, f"{stem}_{name}", torch.from_numpy(np.ascontiguousarray(array)), node) for name, array in arrays.items()}
    settings = {name: arguments[name] for name in ("stride", "padding", "dilation", "groups", "activation")}
    ordered = {
        "x": arguments["x"],
        **constants,
        "bias": arguments["bias"],
        "residual": arguments["residual"],
        "shape": list(packed.shape),
        "filter_group": packed.group,
        **settings,
    }
    with graph_module.graph.inserting_before(node):
        sparse = graph_module.graph.call_function(PATTERN_CONV2D, tuple(ordered.values()))
    sparse.meta["val"] = node.meta["val"]
    carry(node, sparse)
    node.replace_all_uses_with(sparse)
    graph_module.graph.erase_node(node)
    return sparse
