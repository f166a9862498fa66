"""store-weights: the weights of linear layers are stored in a narrower type, and become fp32 as kernels load them."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch.fx import GraphModule
from torch.fx.passes.infra.pass_base import PassResult

from pcc.dtype import dtype_named
from pcc.ir.annotations import Skipped, annotate
from pcc.ir.graph import arguments, constant, finish
from pcc.ir.ops import LINEAR
from pcc.passes.operands import change_operand
from pcc.passes.reduce_precision import narrowed_constant


@dataclass(frozen=True)
class StoreWeights:
    """Stores the weights of linear layers in a narrower type; inputs, outputs and arithmetic stay fp32.

    A linear layer reads each weight once, from memory: it takes the time that its bytes take. Convolutions use a weight
    at many positions.
    """

    dtype: Literal["float16"] = "float16"

    name: ClassVar[str] = "store-weights"
    exact: ClassVar[bool] = False
    works_on: ClassVar[str] = "linear layer"

    def __call__(self, graph_module: GraphModule) -> PassResult:
        narrow, modified = dtype_named(self.dtype), False
        for node in list(graph_module.graph.nodes):
            weight = arguments(node)["weight"] if node.op == "call_function" and node.target is LINEAR else None
            if weight is None or weight.op != "get_attr":
                continue
            if constant(weight).dtype == narrow.torch:
                annotate(node, Skipped(self.name, f"its weights are {narrow} already"))
            else:
                change_operand(node, weight, narrowed_constant(node, weight, narrow))
                modified = True
        finish(graph_module)
        return PassResult(graph_module, modified)
