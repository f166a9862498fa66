"""Composite operators become a few simple ones; what canonicalize knows as a whole (activations, pools, softmax, batch
norm) stays whole."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from operator import getitem
from typing import Any, ClassVar

import torch
from torch._decomp import get_decompositions
from torch._ops import OpOverload
from torch.func import functionalize
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg
from torch.fx.passes.infra.pass_base import PassResult

from pcc.ir.annotations import Skipped, annotate, carry
from pcc.ir.graph import arguments, fake_mode, finish, is_constant
from pcc.passes.canonical import CannotCompile, read_arguments
from pcc.passes.canonicalize import RULES
from pcc.passes.composites import composite_of

_aten: Any = torch.ops.aten

_COMPOSITES = (
    *(
        _aten.addcmul,
        _aten.addcdiv,
        _aten.lerp,
        _aten.square,
        _aten.dist,
        _aten.true_divide,
        _aten.multiply,
        _aten.subtract,
        _aten.divide,
    ),
    *(_aten.selu, _aten.glu, _aten.relu6),
    *(_aten.pixel_shuffle, _aten.pixel_unshuffle, _aten.channel_shuffle, _aten.native_channel_shuffle),
    *(
        _aten.expand_as,
        _aten.broadcast_to,
        _aten.view_as,
        _aten.reshape_as,
        _aten.tile,
        _aten.hstack,
        _aten.vstack,
        _aten.dstack,
    ),
    *(
        _aten.chunk,
        _aten.tensor_split,
        _aten.narrow,
        _aten.movedim,
        _aten.moveaxis,
        _aten.swapaxes,
        _aten.swapdims,
        _aten.unflatten,
    ),
    *(_aten.zeros_like, _aten.ones_like, _aten.full_like, _aten.new_zeros, _aten.new_ones, _aten.new_full),
    *(_aten.empty_like, _aten.new_empty, _aten.mse_loss, _aten.smooth_l1_loss, _aten.huber_loss),
    *(_aten.einsum, _aten.tensordot, _aten.inner, _aten.linalg_norm, _aten.repeat_interleave, _aten.rot90, _aten.diff),
    *(_aten.greater, _aten.less, _aten.addmv, _aten.addr, _aten.column_stack, _aten.fliplr, _aten.flipud),
    *(_aten.hardshrink, _aten.softshrink),
)
"""What PyTorch takes apart by its decompositions."""


@dataclass(frozen=True)
class Decompose:
    """Takes composite operators apart (attention, transposed convolution, norms, LSTM, pixel_shuffle, ...)."""

    name: ClassVar[str] = "decompose"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: GraphModule) -> PassResult:
        modified = False
        pending = list(graph_module.graph.nodes)
        while pending:
            node = pending.pop(0)
            if node.op != "call_function" or is_constant(node):
                continue
            function = composite_of(node.target)
            if function is None and not (_is_composite(node.target) or _is_other_operators(node.target)):
                continue
            try:
                parts = take_apart(node, function, _table(), None if _is_known(node.target) else _is_known)
            except CannotCompile as error:
                annotate(node, Skipped(self.name, str(error)))
                continue
            modified = modified or bool(parts)
            pending = [*parts, *pending]  # parts may be composite themselves
        for node in graph_module.graph.find_nodes(op="call_function", target=_aten.view.default) if modified else ():
            node.target = _aten.reshape.default  # parts need not leave values in memory as the whole did
        finish(graph_module)
        return PassResult(graph_module, modified)


def _is_composite(target: Any) -> bool:
    return getattr(target, "overloadpacket", None) in _COMPOSITES


def _is_known(target: Any) -> bool:
    return target is getitem or target in RULES or composite_of(target) is not None or _is_composite(target)


def _is_other_operators(target: Any) -> bool:
    """Whether PyTorch has an operator without a rule as a few others: aliases (``arccos``, ``concatenate``) and the
    like."""
    return (
        isinstance(target, OpOverload)
        and not _is_known(target)
        and torch._C._dispatch_has_kernel_for_dispatch_key(target.name(), "CompositeImplicitAutograd")
    )


def _empty_like(x: torch.Tensor, *, dtype: torch.dtype | None = None, **_: Any) -> torch.Tensor:
    """What is written whole later."""
    return torch.zeros(x.shape, dtype=dtype or x.dtype)


def _new_empty(x: torch.Tensor, size: Sequence[int], *, dtype: torch.dtype | None = None, **_: Any) -> torch.Tensor:
    return torch.zeros(size, dtype=dtype or x.dtype)


def _full_like(x: torch.Tensor, fill_value: float, *, dtype: torch.dtype | None = None, **_: Any) -> torch.Tensor:
    """Of static shape it is a constant; PyTorch's decomposition ends here."""
    return torch.full(x.shape, fill_value, dtype=dtype or x.dtype)


def _lerp(start: torch.Tensor, end: torch.Tensor, weight: float) -> torch.Tensor:
    """As PyTorch computes it, from the nearer end; PyTorch's decomposition asks for the nearer end in the graph."""
    return start + (end - start) * weight if abs(weight) < 0.5 else end - (end - start) * (1 - weight)


def take_apart(
    node: Node,
    function: Callable[..., Any] | None,
    table: dict[Any, Any],
    known: Callable[[Any], bool] | None = None,
) -> list[Node]:
    """Puts the operators that compute a node in its place, and returns them; none if it is already simple, or if some
    are not ``known``: errors shall name what the author wrote.

    What it computes is a function of those arguments that it names (else the operator itself), traced with PyTorch's
    decompositions in ``table``. A function that names ``computed`` is told which arguments depend on the model's input,
    one that names ``used`` which results somebody reads.
    """
    operands = node.all_input_nodes
    mode = fake_mode(node.graph)
    written: dict[str, Any] = arguments(node) if function is None else read_arguments(function, node)
    named = frozenset() if function is None else inspect.signature(function).parameters
    if "computed" in named:
        written["computed"] = frozenset(
            name for name, value in written.items() if isinstance(value, Node) and not is_constant(value)
        )
    if "used" in named:
        written["used"] = frozenset(user.args[1] for user in node.users if user.users)
    whole = False

    def compute(*values: Any) -> Any:
        nonlocal whole
        arguments = map_arg(written, dict(zip(operands, values, strict=True)).__getitem__)
        result = node.target(**arguments) if function is None else function(**arguments)  # type: ignore[operator]
        whole = result is NotImplemented
        return values if whole else result

    with mode:
        traced = make_fx(
            functionalize(compute, remove="mutations") if function is None else compute, decomposition_table=table
        )(*(operand.meta["val"] for operand in operands)).graph
    calls = [part for part in traced.nodes if part.op == "call_function"]
    if whole or [part.target for part in calls] == [node.target] or any(part.op == "get_attr" for part in traced.nodes):
        return []
    if known is not None and not all(known(part.target) for part in calls):
        return []
    copied: dict[Node, Any] = dict(zip(traced.find_nodes(op="placeholder"), operands, strict=True))
    with node.graph.inserting_before(node):
        for part in calls:
            copied[part] = node.graph.node_copy(part, lambda operand: copied[operand])
            copied[part].meta = {"val": part.meta["val"]}
            carry(node, copied[part])
    results = map_arg(traced.output_node().args[0], lambda part: copied[part])
    if isinstance(results, Node):
        node.replace_all_uses_with(results)
    else:
        for user in list(node.users):  # operator.getitem of a list of results
            user.replace_all_uses_with(results[user.args[1]])  # type: ignore[index]
            node.graph.erase_node(user)
    node.graph.erase_node(node)
    return [copied[part] for part in calls]


@cache
def _table() -> dict[Any, Any]:
    return {
        **get_decompositions(_COMPOSITES),
        _aten.full_like.default: _full_like,
        _aten.empty_like.default: _empty_like,
        _aten.new_empty.default: _new_empty,
        _aten.lerp.Scalar: _lerp,
    }
