"""Whether a graph is well formed, and whether it still computes what it did."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from pcc.dtype import REALS, full_name
from pcc.errors import PccError
from pcc.ir.graph import OUTPUT_NAMES, constant, infer, is_constant

TOLERANCE = 1e-4
"""Relative error that an exact pass may cause."""


def verify_structure(graph_module: GraphModule) -> None:
    """`PccError` naming the first node whose recorded shape or type is not what it computes, or a constant that is
    missing or holds NaN."""
    for node in graph_module.graph.nodes:
        if node.op == "get_attr":
            _verify_constant(node)
        elif node.op == "call_function":
            _verify_call(node)
    graph_module.graph.lint()
    names, returned = graph_module.meta.get(OUTPUT_NAMES), graph_module.graph.output_node().args[0]
    count = len(returned) if isinstance(returned, list | tuple) else 1
    if names is not None and len(names) != count:
        raise PccError(f"the graph returns {count} values under {len(names)} names")


def relative_error(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference over all outputs, each relative to the largest finite absolute value of its expected
    output.

    The same infinity, and NaN where NaN is expected, are no difference; other NaN and infinities are an infinite one.
    """
    worst = 0.0
    for a, b in zip(actual, expected, strict=True):
        a, b = a.detach().double(), b.detach().double()
        if a.shape != b.shape:
            return float("inf")
        if b.numel() == 0:
            continue
        same = (a == b) | (a.isnan() & b.isnan())
        largest = b.abs().where(b.isfinite(), 0.0).max().clamp_min(1e-30)
        error = float((a - b).abs().where(~same, 0.0).max() / largest)
        worst = max(worst, error if error == error else float("inf"))
    return worst


def as_taken(graph_module: GraphModule, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Floating-point inputs in the type that the graph takes them in."""
    types = [node.meta["val"].dtype for node in graph_module.graph.find_nodes(op="placeholder")]
    return [x.to(dtype) if x.is_floating_point() else x for x, dtype in zip(inputs, types, strict=True)]


def run_graph(graph_module: GraphModule, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The graph's outputs, computed by the operators' reference semantics."""
    with torch.no_grad():
        result = graph_module(*as_taken(graph_module, inputs))
    return tuple(result) if isinstance(result, list | tuple) else (result,)


def _verify_constant(node: Node) -> None:
    try:
        value = constant(node)
    except AttributeError as error:
        raise PccError(f"node {node.name}: the graph has no constant '{node.target}'") from error
    recorded = node.meta["val"]
    if value.shape != recorded.shape or value.dtype != recorded.dtype:
        raise PccError(f"node {node.name}: recorded as {_describe(recorded)}, the constant is {_describe(value)}")
    if value.is_floating_point() and value.isnan().any():  # infinities are what attention masks are made of
        raise PccError(f"node {node.name}: the constant '{node.target}' holds NaN")


def _verify_call(node: Node) -> None:
    recorded = node.meta.get("val")
    if recorded is None:
        raise PccError(f"node {node.name}: no shape recorded")
    infer(node)
    computed, node.meta["val"] = node.meta["val"], recorded
    for was, now in zip(_parts(recorded), _parts(computed), strict=True):
        if was.shape != now.shape or was.dtype != now.dtype:
            raise PccError(f"node {node.name}: recorded as {_describe(was)}, {node.target} gives {_describe(now)}")
        if now.is_floating_point() and now.dtype not in (dtype.torch for dtype in REALS) and not is_constant(node):
            raise PccError(
                f"node {node.name}: {node.target} gives {_describe(now)}, not {' or '.join(map(str, REALS))}"
            )


def _parts(value: object) -> list[Tensor]:
    return list(value) if isinstance(value, list | tuple) else [value]  # type: ignore[list-item]


def _describe(value: Tensor) -> str:
    return f"{full_name(value.dtype)}{list(value.shape)}"
