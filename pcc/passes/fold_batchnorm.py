"""fold-batchnorm: at inference a batch norm is a scale and a shift per channel, which neighbouring layers take over for nothing.

Into the layer before: ``scale * (W x + b) + shift = (scale W) x + (scale b + shift)``. Always exact.

Into the layer behind: ``W (scale x + shift) + b = (W scale) x + (W shift + b)``. Exact where the layer sees no zero that the batch norm would
not have scaled and shifted: it must not pad, or every shift must be zero.

All in double precision; results are rounded to fp32 once.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult

from pcc.errors import PccError
from pcc.ir.annotations import Skipped, annotate
from pcc.ir.graph import add_constant, arguments, constant, finish, layer_name, replace, rewrite, shape_of
from pcc.ir.ops import BATCH_NORM, CONV2D, ELEMENTWISE, LINEAR
from pcc.passes.operands import set_argument, set_constant


@dataclass(frozen=True)
class FoldBatchnorm:
    """Folds batch norms into the convolution or linear layer before or behind them; those left become a scale and a shift."""

    name: ClassVar[str] = "fold-batchnorm"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: GraphModule) -> PassResult:
        norms = graph_module.graph.find_nodes(op="call_function", target=BATCH_NORM)
        for norm in norms:
            if (reason := _not_constant(norm)) is not None:
                annotate(norm, Skipped(self.name, reason))
                continue
            affine = _affine(norm)
            if (no_layer_before := _into_layer_before(norm, affine)) is None:
                continue
            if (no_layer_behind := _into_layer_behind(norm, affine)) is None:
                continue
            _stand_alone(norm, affine)
            annotate(norm, Skipped(self.name, f"not into the layer before: {no_layer_before}; not into the layer behind: {no_layer_behind}"))
        finish(graph_module)
        return PassResult(graph_module, any(norm.target is not BATCH_NORM or norm._erased for norm in norms))


@dataclass(frozen=True)
class _Affine:
    """``y = scale * x + shift`` for each channel, in float64."""

    scale: Tensor
    shift: Tensor


def _not_constant(norm: Node) -> str | None:
    bound = arguments(norm)
    if bound["training"] or bound["running_mean"] is None:
        return "the statistics are those of its input"
    parameters = [bound[name] for name in ("running_mean", "running_var", "weight", "bias")]
    if any(parameter is not None and parameter.op != "get_attr" for parameter in parameters):
        return "its parameters are computed (fold-constants comes first)"
    return None


def _affine(norm: Node) -> _Affine:
    bound = arguments(norm)
    mean, variance = constant(bound["running_mean"]).double(), constant(bound["running_var"]).double()
    scale = (variance + bound["eps"]).rsqrt()
    if bound["weight"] is not None:
        scale = scale * constant(bound["weight"]).double()
    shift = -mean * scale
    if bound["bias"] is not None:
        shift = shift + constant(bound["bias"]).double()
    if not (scale.isfinite().all() and shift.isfinite().all()):
        raise PccError(f"batch norm {layer_name(norm)}: running_var + eps is not positive in every channel")
    return _Affine(scale, shift)


def _into_layer_before(norm: Node, affine: _Affine) -> str | None:
    """Folds, or says why not."""
    layer = arguments(norm)["input"]
    if (reason := _not_a_layer(layer)) is not None:
        return reason
    bound = arguments(layer)
    if len(layer.users) > 1:
        return f"{layer.name} has {len(layer.users)} users"
    if bound["residual"] is not None or bound["activation"] != "none":
        return f"{layer.name} ends in a residual or an activation"
    weight = constant(bound["weight"]).double()
    bias = 0.0 if bound["bias"] is None else constant(bound["bias"]).double()
    scale = affine.scale.reshape(-1, *(1,) * (weight.dim() - 1))
    if not _set_parameters(layer, weight * scale, bias * affine.scale + affine.shift):
        return f"the weights of {layer.name} would leave the range of fp32"
    replace(norm, layer)
    return None


def _into_layer_behind(norm: Node, affine: _Affine) -> str | None:
    """Folds, or says why not."""
    if len(norm.users) != 1:
        return f"{len(norm.users)} users"
    (layer,) = norm.users
    if (reason := _not_a_layer(layer)) is not None:
        return reason
    bound = arguments(layer)
    if bound["residual"] is norm:
        return f"{layer.name} adds it as its residual"
    if layer.target is CONV2D and any(bound["padding"]) and affine.shift.any():
        return f"{layer.name} pads with zeros, which the batch norm does not shift"
    weight = constant(bound["weight"]).double()
    filters, channels = weight.shape[:2]
    groups = bound.get("groups", 1)

    def per_weight(values: Tensor) -> Tensor:
        """The value of each filter's own input channels, shaped to broadcast over the weight."""
        own = values.reshape(groups, channels).repeat_interleave(filters // groups, dim=0)
        return own.reshape(filters, channels, *(1,) * (weight.dim() - 2))

    shift = (weight * per_weight(affine.shift)).flatten(1).sum(1)
    bias = 0.0 if bound["bias"] is None else constant(bound["bias"]).double()
    if not _set_parameters(layer, weight * per_weight(affine.scale), bias + shift):
        return f"the weights of {layer.name} would leave the range of fp32"
    set_argument(layer, "x", arguments(norm)["input"])
    norm.graph.erase_node(norm)
    return None


def _not_a_layer(node: Node) -> str | None:
    if node.target not in (CONV2D, LINEAR):
        return f"{node.name} is no convolution or linear layer"
    bound = arguments(node)
    if any(operand is not None and operand.op != "get_attr" for operand in (bound["weight"], bound["bias"])):
        return f"the weights of {node.name} are computed (fold-constants comes first)"
    return None


def _set_parameters(layer: Node, weight: Tensor, bias: Tensor) -> bool:
    """Gives the layer new parameters, rounded to fp32; False if they do not fit in it."""
    weight, bias = weight.float(), bias.float()
    if not (weight.isfinite().all() and bias.isfinite().all()):
        return False
    bound = arguments(layer)
    set_constant(layer, "weight", bound["weight"], weight, f"{layer_name(layer)}.weight")
    set_constant(layer, "bias", bound["bias"], bias, f"{layer_name(layer)}.bias")
    return True


def _stand_alone(norm: Node, affine: _Affine) -> None:
    x = arguments(norm)["input"]
    shape = (1, -1, *(1,) * (len(shape_of(x)) - 2))
    scale, shift = affine.scale.float().reshape(shape), affine.shift.float().reshape(shape)
    if not (scale.isfinite().all() and shift.isfinite().all()):
        raise PccError(f"batch norm {layer_name(norm)}: its scale or shift is beyond fp32 in some channel")
    scale = add_constant(norm, f"{layer_name(norm)}.scale", scale)
    shift = add_constant(norm, f"{layer_name(norm)}.shift", shift)
    rewrite(norm, ELEMENTWISE, ([x, scale, shift], "add(mul(x0,x1),x2)"))
