"""fold-batchnorm: at inference a batch norm is a scale and a shift per channel, which neighbouring layers take over for
nothing.

Into the layer before: ``scale * (W x + b) + shift = (scale W) x + (scale b + shift)``. Always exact.

Into the layer behind: ``W (scale x + shift) + b = (W scale) x + (W shift + b)``. Exact where the layer sees no zero
that the batch norm would not have scaled and shifted: it must not pad, or every shift must be zero.

All in double precision; results are rounded to fp32 once.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg
from torch.fx.passes.infra.pass_base import PassResult

from pcc.errors import PccError
from pcc.ir.annotations import Skipped, annotate
from pcc.ir.graph import add_constant, arguments, constant, finish, layer_name, replace, rewrite, shape_of
from pcc.ir.ops import BATCH_NORM, CONCAT, CONV2D, ELEMENTWISE, LINEAR, PERMUTE, RESHAPE, SLICE
from pcc.passes.operands import set_argument, set_constant


@dataclass(frozen=True)
class FoldBatchnorm:
    """Folds batch norms into the convolution or linear layer before or behind them; those left become a scale and a
    shift."""

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
            annotate(
                norm,
                Skipped(
                    self.name,
                    f"not into the layer before: {no_layer_before}; not into the layer behind: {no_layer_behind}",
                ),
            )
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
    """Folds, or says why not. Between the layer and the norm values may be moved, and several layers' be joined, as
    long as each filter has one channel."""
    found = _layers_before(arguments(norm)["input"])
    if isinstance(found, str):
        return found
    channel = _channels_of_filters(norm, found)
    if channel is None:
        return f"values of {found[0].name} go to several channels"
    parameters = []
    for layer, filters in zip(found, channel.split([shape_of(layer)[1] for layer in found]), strict=True):
        scale = affine.scale[filters].where(filters >= 0, 1.0)  # a filter of which nothing is left stays as it is
        shift = affine.shift[filters].where(filters >= 0, 0.0)
        bound = arguments(layer)
        weight = constant(bound["weight"]).double()
        bias = 0.0 if bound["bias"] is None else constant(bound["bias"]).double()
        parameters.append(_rounded(weight * scale.reshape(-1, *(1,) * (weight.dim() - 1)), bias * scale + shift))
    if None in parameters:
        return f"the weights of {found[0].name} would leave the range of fp32"
    for layer, values in zip(found, parameters, strict=True):
        _set_parameters(layer, values)
    replace(norm, arguments(norm)["input"])
    return None


_MOVES = (RESHAPE, PERMUTE, SLICE, CONCAT)


def _layers_before(node: Node) -> list[Node] | str:
    """The layers whose values, moved, are a node's, each once and in the order of the graph; or why there are none."""
    if node.target not in _MOVES and (reason := _not_a_layer(node)) is not None:
        return reason
    if len(node.users) > 1:
        return f"{node.name} has {len(node.users)} users"
    if node.target not in _MOVES:
        bound = arguments(node)
        if bound["residual"] is not None or bound["activation"] != "none":
            return f"{node.name} ends in a residual or an activation"
        return [node]
    layers: list[Node] = []
    for operand in node.all_input_nodes:
        found = _layers_before(operand)
        if isinstance(found, str):
            return found
        layers += found
    return layers


def _channels_of_filters(norm: Node, layers: list[Node]) -> Tensor | None:
    """The norm's channel to which each filter of all layers goes, -1 for one that goes nowhere; None where one goes to
    several."""
    if layers == [arguments(norm)["input"]]:
        return torch.arange(shape_of(norm)[1])
    values: dict[Node, Tensor] = {}
    count = 0
    for layer in layers:
        shape = shape_of(layer)
        filters = torch.arange(count, count + shape[1], dtype=torch.float64)
        values[layer] = filters.reshape(1, -1, *(1,) * (len(shape) - 2)).expand(shape)
        count += shape[1]

    def moved(node: Node) -> Tensor:
        """What becomes of the filters' numbers."""
        if node not in values:
            args, kwargs = map_arg((node.args, node.kwargs), moved)
            values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
        return values[node]

    numbers = moved(arguments(norm)["input"]).transpose(0, 1).flatten(1).long()
    place = torch.arange(len(numbers))[:, None].expand_as(numbers)
    channel = torch.full((count,), -1).scatter(0, numbers.flatten(), place.flatten())
    return channel if (channel[numbers] == place).all() else None


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
        by_weight = values.reshape(groups, channels).repeat_interleave(filters // groups, dim=0)
        return by_weight.reshape(filters, channels, *(1,) * (weight.dim() - 2))

    shift = (weight * per_weight(affine.shift)).flatten(1).sum(1)
    bias = 0.0 if bound["bias"] is None else constant(bound["bias"]).double()
    parameters = _rounded(weight * per_weight(affine.scale), bias + shift)
    if parameters is None:
        return f"the weights of {layer.name} would leave the range of fp32"
    _set_parameters(layer, parameters)
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


def _rounded(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor] | None:
    """Parameters in fp32; None if they do not fit in it."""
    weight, bias = weight.float(), bias.float()
    return (weight, bias) if weight.isfinite().all() and bias.isfinite().all() else None


def _set_parameters(layer: Node, parameters: tuple[Tensor, Tensor]) -> None:
    for name, value in zip(("weight", "bias"), parameters, strict=True):
        set_constant(layer, name, arguments(layer)[name], value, f"{layer_name(layer)}.{name}")


def _stand_alone(norm: Node, affine: _Affine) -> None:
    x = arguments(norm)["input"]
    shape = (1, -1, *(1,) * (len(shape_of(x)) - 2))
    scale, shift = affine.scale.float().reshape(shape), affine.shift.float().reshape(shape)
    if not (scale.isfinite().all() and shift.isfinite().all()):
        raise PccError(f"batch norm {layer_name(norm)}: its scale or shift is beyond fp32 in some channel")
    scale = add_constant(norm, f"{layer_name(norm)}.scale", scale)
    shift = add_constant(norm, f"{layer_name(norm)}.shift", shift)
    rewrite(norm, ELEMENTWISE, ([x, scale, shift], "add(mul(x0,x1),x2)"))
