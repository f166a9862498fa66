"""spell-out: pcc's operators become plain ATen operators again, for those who read the graph with other tools."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult

from pcc.errors import PccError
from pcc.ir import expression as language
from pcc.ir.graph import add_constant, arguments, finish, layer_name, rewrite, shape_of
from pcc.ir.ops import (
    CONVERT,
    ELEMENTWISE,
    GATHER,
    NMS,
    POOL2D,
    RESIZE2D,
    SCAN,
    TOP_K,
    UNPACK,
    packed_weight,
    padded,
    window_output_size,
)
from pcc.ir.register import REFERENCES, rounded_once
from pcc.passes.decompose import take_apart
from pcc.sparsity.formats import format_named


@dataclass(frozen=True)
class SpellOut:
    """Takes fused and packed operators apart: convolution, residual and activation become calls of their own, packed
    weights dense ones."""

    name: ClassVar[str] = "spell-out"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: GraphModule) -> PassResult:
        changed = False
        for node in list(graph_module.graph.nodes):
            if node.target is UNPACK:
                _unpack(node)
            elif node.target is RESIZE2D:
                _resize(node)
            elif node.target is NMS:
                raise PccError(
                    f"node {node.name}: non-maximum suppression is a loop, which no exported file can have: return "
                    "boxes and scores before it"
                )
            elif node.target in _SPELLED:
                changed |= bool(take_apart(node, _SPELLED[node.target], {}))
        finish(graph_module)
        return PassResult(graph_module, changed)


def _unpack(node: Node) -> None:
    """The weight becomes a constant again, called as its reader calls it."""
    weight = format_named(arguments(node)["format"]).unpack(packed_weight(node))
    node.replace_all_uses_with(
        add_constant(node, f"{layer_name(next(iter(node.users)))}.weight", torch.from_numpy(weight))
    )


def _resize(node: Node) -> None:
    """Interpolation as ``F.interpolate`` calls it, which exporters know: to a size, or by factors that also place the
    samples."""
    args = arguments(node)
    size, scales = list(args["size"]), args["scales"]
    options = () if args["mode"] == "nearest" else (args["align_corners"],)
    upsample: Any = getattr(torch.ops.aten, f"upsample_{args['mode']}2d")
    if scales is None:
        rewrite(node, upsample.vec, (args["x"], size, *options, None))
    elif size == [int(have * factor) for have, factor in zip(shape_of(args["x"])[2:], scales, strict=True)]:
        rewrite(node, upsample.vec, (args["x"], None, *options, list(scales)))
    else:
        rewrite(node, upsample.default, (args["x"], size, *options, *scales))


def _pool2d(
    x: Tensor,
    mode: str,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
    count_include_pad: bool,
) -> Tensor:
    if mode == "sum":
        summed = [axis for axis, taps in zip((2, 3), kernel, strict=True) if taps > 1]
        return x.sum(summed, keepdim=True) if summed else x
    if mode == "avg" and dilation != [1, 1]:
        return REFERENCES[POOL2D](x, mode, kernel, stride, padding, dilation, ceil_mode, count_include_pad)
    if padding[:2] == padding[2:] and all(2 * before <= taps for before, taps in zip(padding, kernel, strict=False)):
        if mode == "max":
            return F.max_pool2d(x, kernel, stride, padding[:2], dilation, ceil_mode)
        return F.avg_pool2d(x, kernel, stride, padding[:2], ceil_mode, count_include_pad)
    height, width = window_output_size(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)

    def pooled(x: Tensor, fill: float = 0.0) -> Tensor:
        x = padded(x, padding, fill)
        if mode == "max":
            found = F.max_pool2d(x, kernel, stride, 0, dilation, ceil_mode)
        else:
            found = F.avg_pool2d(x, kernel, stride, 0, ceil_mode)
        # In ceil mode the last window may see nothing but padding.
        return found if found.shape[2:] == (height, width) else found[:, :, :height, :width]

    if mode == "max":
        return pooled(x, -torch.inf)
    if count_include_pad:
        return pooled(x)
    return pooled(x) / pooled(torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype))


def _elementwise(xs: list[Tensor], expression: str) -> Tensor:
    value = language.value_of(language.parse(expression), xs)
    shape = torch.broadcast_shapes(*(x.shape for x in xs))
    return value if value.shape == shape else value.expand(shape)


def _gather(x: Tensor, index: Tensor, weight: Tensor | None) -> Tensor:
    batch, channels, size, inner = x.shape
    taps, places = index.shape[1:]
    at = index.clamp(0, size - 1).long().reshape(index.shape[0], 1, taps * places, 1).expand(batch, channels, -1, inner)
    found = torch.gather(x, 2, at)
    return (
        found
        if weight is None
        else (found.reshape(batch, channels, taps, places, inner) * weight[:, None, :, :, None]).sum(2)
    )


def _top_k(x: Tensor, k: int, largest: bool, indices: bool) -> Tensor:
    # Of equal values the first comes first: max says so, topk leaves it open, and places of a pool's maxima depend on
    # it.
    values, places = torch.max(x, 1, keepdim=True) if k == 1 and largest else torch.topk(x, k, 1, largest)
    return places.to(x.dtype) if indices else values


def _scan(x: Tensor, mode: str) -> Tensor:
    if mode not in ("sum", "prod"):
        return NotImplemented
    return (torch.cumsum if mode == "sum" else torch.cumprod)(x, 1)


_SPELLED: dict[Any, Callable[..., Any]] = {
    operator: function if operator is CONVERT else rounded_once(function)
    for operator, function in {
        **REFERENCES,
        POOL2D: _pool2d,
        GATHER: _gather,
        TOP_K: _top_k,
        SCAN: _scan,
        ELEMENTWISE: _elementwise,
    }.items()
}
"""Each of pcc's operators in PyTorch's words: as its reference has it, or as exporters know it. Narrower operands
become fp32 before."""
