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
from pcc.codegen.lower import geometry_of
from pcc.codegen.program import View, contiguous_strides
from pcc.ir.activation import Activation
from pcc.ir.annotations import KernelChoice, annotate
from pcc.ir.graph import add_constant, arguments, constant, finish, rewrite, shape_of
from pcc.ir.ops import CONV2D, PATTERN_CONV2D
from pcc.passes.packing import packed_weight
from pcc.sparsity.fkw import FKW


@dataclass(frozen=True)
class SelectKernels:
    """Gives each convolution its fastest kernel family by cost model; weights of sparse kernels become FKW.

    The structure is looked for in the zeros of the weight, so it does not matter which tool pruned it. A sparse kernel that would lose to the
    dense one is not chosen, and the reason is recorded.
    """

    isa: str = ""
    """The instruction set the costs are for; the driver fills in the target's."""

    name: ClassVar[str] = "select-kernels"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: GraphModule) -> PassResult:
        lanes = isa_named(self.isa).lanes
        modified = False
        for node in list(graph_module.graph.nodes):
            if node.op == "call_function" and node.target == CONV2D:
                modified |= _select(node, lanes)
        finish(graph_module)
        return PassResult(graph_module, modified)


def _select(node: Node, lanes: int) -> bool:
    """Annotates the choice for one convolution; True if its weight was packed."""
    given = arguments(node)
    weight = constant(given["weight"]).numpy()
    if given["groups"] > 1 and weight.shape[1] == 1:
        annotate(node, KernelChoice("conv-depthwise", "one input channel a filter"))
        return False
    packed = packed_weight(node)
    if isinstance(packed, str):
        annotate(node, KernelChoice("conv-dense", packed))
        return False
    dense_cost, sparse_cost = (cost(_layer(node, given, w), lanes) for cost, w in ((cost_conv_dense, weight), (cost_conv_sparse, packed)))
    ratio = dense_cost / sparse_cost
    if ratio <= 1:
        annotate(node, KernelChoice("conv-dense", f"a sparse kernel would take {1 / ratio:.2f}x the time"))
        return False
    _pack(node, given, packed)
    annotate(node, KernelChoice("conv-sparse", f"{ratio:.2f}x faster than dense by cost model"))
    return True


def _layer(node: Node, given: dict[str, Any], weight: np.ndarray | FKW) -> Conv2d:
    """The convolution as cost models see it: sizes, not places."""

    def view(value: Node | None) -> View | None:
        return None if value is None else View(value.name, shape_of(value), contiguous_strides(shape_of(value)))

    x, y = view(given["x"]), view(node)
    assert x is not None
    assert y is not None
    geometry = geometry_of(given, (weight.shape[2], weight.shape[3]))
    return Conv2d(node.name, x, y, weight, None, geometry, given["groups"], view(given["residual"]), Activation.parse(given["activation"]))


def _pack(node: Node, given: dict[str, Any], packed: FKW) -> None:
    """Turns ``pcc::conv2d`` into ``pcc::pattern_conv2d``, with the packed arrays as constants."""
    stem = str(given["weight"].target)
    arrays = (packed.weight, packed.patterns, packed.reorder, packed.offset, packed.index, packed.stride)
    names = ("kernels", "patterns", "reorder", "offset", "index", "stride")
    constants = [add_constant(node, f"{stem}_{name}", torch.from_numpy(array)) for name, array in zip(names, arrays, strict=True)]
    settings = [given[name] for name in ("stride", "padding", "dilation", "groups", "activation")]
    rewrite(node, PATTERN_CONV2D, (given["x"], *constants, given["bias"], given["residual"], list(packed.shape), packed.group, *settings))
