"""fuse-epilogues: what happens to a value right after it was computed happens before it is stored.

A convolution or linear layer ends in ``activation(value + bias + residual)``, done while the value is in a register;
additions and activations around a layer's only use move there. Elementwise nodes that remain are fused into chains: one
pass over memory instead of several.
"""

from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult

from pcc.ir.activation import IDENTITY, PARAMETRIC, Activation
from pcc.ir.annotations import Skipped, annotate
from pcc.ir.expression import (
    Call,
    Expr,
    Literal,
    Operand,
    as_activation,
    count_calls,
    operand_indices,
    parse,
    substitute,
)
from pcc.ir.graph import arguments, constant, finish, layer_name, rewrite, shape_of
from pcc.ir.graph import replace as replace_node
from pcc.ir.ops import CONV2D, ELEMENTWISE, LINEAR
from pcc.passes.idioms import recognise
from pcc.passes.operands import set_argument, set_constant

MOST_OPERANDS = 8
"""Tensors a fused chain reads: each costs a pointer register in the kernel's loop."""
MOST_CALLS = 32
"""Functions a fused chain applies: compile time grows with them, and what they save does not."""

LAYERS = (CONV2D, LINEAR)


@dataclass(frozen=True)
class FuseEpilogues:
    """Fuses bias, residual additions and activations into convolutions and linear layers, and elementwise chains into
    one node."""

    name: ClassVar[str] = "fuse-epilogues"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: GraphModule) -> PassResult:
        modified = False
        # Until nothing moves: a chain may turn out to be an activation, or to use a layer once that was used twice.
        while self._round(graph_module):
            modified = True
        for node in _elementwise(graph_module):
            if reasons := _fuse_into_layers(node):
                annotate(node, Skipped(self.name, "; ".join(reasons)))
        finish(graph_module)
        return PassResult(graph_module, modified)

    def _round(self, graph_module: GraphModule) -> bool:
        before = str(graph_module.graph)
        for node in _elementwise(graph_module):
            _fuse_into_layers(node)
        for node in _elementwise(graph_module):
            self._fuse_chain(node)
        return str(graph_module.graph) != before

    def _fuse_chain(self, node: Node) -> None:
        """Takes in the elementwise nodes whose value only this node uses, as often as there are some."""
        operands, expr = _read(node)
        position = 0
        while position < len(operands):
            producer = operands[position]
            if producer.target is not ELEMENTWISE or len(producer.users) > 1 or shape_of(producer) != shape_of(node):
                position += 1
                continue
            merged, fused = _merge(operands, expr, position)
            if len(merged) > MOST_OPERANDS or count_calls(fused) > MOST_CALLS:
                limit = f"{MOST_OPERANDS} operands" if len(merged) > MOST_OPERANDS else f"{MOST_CALLS} operations"
                annotate(
                    producer, Skipped(self.name, f"not fused into {node.name}: the chain would have more than {limit}")
                )
                position += 1
                continue
            operands, expr = merged, recognise(fused)
            _write(node, operands, expr)
            node.graph.erase_node(producer)


# ---- layers ----


@dataclass(frozen=True)
class _Epilogue:
    """What a layer takes over; its own bias, residual and activation are not in it."""

    bias: Tensor | None = None
    """(channels,) float64."""
    residual: Node | None = None
    activation: Activation = IDENTITY
    parameter: Tensor | None = None
    """(channels,) float64, of activations that have one for each channel."""

    @property
    def is_empty(self) -> bool:
        return self.bias is None and self.residual is None and self.activation == IDENTITY


def _fuse_into_layers(node: Node) -> list[str]:
    """Moves as much of the expression into the layers it reads as can go there; why some could not take anything, or
    more."""
    reasons = []
    # The layer computed last comes first: of two that are added, it can read the other's result.
    for layer in sorted((operand for operand in _read(node)[0] if operand.target in LAYERS), reverse=True):
        operands, expr = _read(node)
        if layer not in operands:  # it became the residual of another
            continue
        epilogue, expr, reason = _take_over(layer, operands, expr)
        if not epilogue.is_empty:
            _give(layer, epilogue, node)
            if isinstance(expr, Operand):
                replace_node(node, layer)
                return []
            _write(node, operands, expr)
        if reason:
            reasons.append(f"{layer.name}: {reason}")
    return reasons


def _take_over(layer: Node, operands: list[Node], expr: Expr) -> tuple[_Epilogue, Expr, str]:
    """The largest epilogue the layer can have, the expression that is left, and what stopped it."""
    epilogue, result = _Epilogue(), Operand(operands.index(layer))
    if len(layer.users) > 1:
        return epilogue, expr, f"it has {len(layer.users)} users"
    if _uses(expr, result) > 1:
        return epilogue, expr, "the expression uses it more than once"
    while isinstance(parent := _parent(expr, result), Call):
        grown = _with(epilogue, layer, result, parent, operands)
        if isinstance(grown, str):
            return epilogue, expr, grown
        epilogue, expr = grown, _put(expr, parent, result)
    return epilogue, expr, ""


def _with(epilogue: _Epilogue, layer: Node, result: Operand, call: Call, operands: list[Node]) -> "_Epilogue | str":
    """The epilogue with a function of the layer's value added to it; or why that cannot be."""
    bound = arguments(layer)
    done = bound["activation"] if bound["activation"] != "none" else str(epilogue.activation)
    if done != "none":
        return f"{call.function} comes after its activation {done}"
    if (activated := as_activation(call)) is not None:
        return replace(epilogue, activation=activated[0])
    if (parameter := _parameter(call, result, layer, operands)) is not None:
        return replace(epilogue, activation=Activation(call.function), parameter=parameter)
    if call.function not in ("add", "sub") or (call.function == "sub" and call.args[0] != result):
        return f"{call.function} is neither an addition nor an activation of it"
    other = call.args[1] if call.args[0] == result else call.args[0]
    if (bias := _per_channel(other, layer, operands)) is not None:
        bias = -bias if call.function == "sub" else bias
        return replace(epilogue, bias=bias if epilogue.bias is None else epilogue.bias + bias)
    if call.function == "sub" or not isinstance(other, Operand):
        return (
            f"{call.function} of what is not a constant of each channel"
            if call.function == "sub"
            else "what is added to it is computed in the same expression"
        )
    residual = operands[other.index]
    if bound["residual"] is not None or epilogue.residual is not None:
        return "it has a residual already"
    if shape_of(residual) != shape_of(layer):
        return f"{residual.name} {shape_of(residual)} is broadcast when it is added to {shape_of(layer)}"
    return replace(epilogue, residual=residual)


def _parameter(call: Call, result: Expr, layer: Node, operands: list[Node]) -> Tensor | None:
    """That of an activation of the layer's value that has one for each channel; else None."""
    if call.function not in PARAMETRIC:
        return None
    commutes = call.function in ("max", "min")
    value, parameter = call.args if call.args[0] == result or not commutes else call.args[::-1]
    return _per_channel(parameter, layer, operands) if value == result else None


def _per_channel(value: Expr, layer: Node, operands: list[Node]) -> Tensor | None:
    """A number or constant that is the same everywhere in a channel, as (channels,) float64; else None."""
    channels = shape_of(layer)[1]
    if isinstance(value, Literal):
        return torch.full((channels,), value.value, dtype=torch.float64)
    if not isinstance(value, Operand) or operands[value.index].op != "get_attr":
        return None
    tensor = constant(operands[value.index])
    rank = len(shape_of(layer))
    shape = (1,) * (rank - tensor.dim()) + tuple(tensor.shape)
    if len(shape) != rank or shape[1] not in (1, channels) or prod(shape) != shape[1]:
        return None
    return tensor.double().reshape(-1).expand(channels)


def _give(layer: Node, epilogue: _Epilogue, user: Node) -> None:
    bound = arguments(layer)
    if epilogue.bias is not None:
        bias = 0.0 if bound["bias"] is None else constant(bound["bias"]).double()
        set_constant(layer, "bias", bound["bias"], (bias + epilogue.bias).float(), f"{layer_name(layer)}.bias")
    if epilogue.activation != IDENTITY:
        set_argument(layer, "activation", str(epilogue.activation))
    if epilogue.parameter is not None:
        set_constant(layer, "parameter", None, epilogue.parameter.float(), f"{layer_name(layer)}.{epilogue.activation}")
    if epilogue.residual is not None:
        set_argument(layer, "residual", epilogue.residual)
        if layer < epilogue.residual:  # only `user` waits for the layer, so it can wait for the residual
            user.prepend(layer)


# ---- expressions ----


def _elementwise(graph_module: GraphModule) -> list[Node]:
    return list(graph_module.graph.find_nodes(op="call_function", target=ELEMENTWISE))


def _read(node: Node) -> tuple[list[Node], Expr]:
    """What the node computes; each operand once."""
    bound = arguments(node)
    operands = list(dict.fromkeys(bound["xs"]))
    return operands, substitute(
        parse(bound["expression"]), {index: Operand(operands.index(x)) for index, x in enumerate(bound["xs"])}
    )


def _write(node: Node, operands: list[Node], expr: Expr) -> None:
    """The node computes another expression; operands it does not read are dropped."""
    used = operand_indices(expr)
    renumbered = substitute(expr, {old: Operand(new) for new, old in enumerate(used)})
    rewrite(node, ELEMENTWISE, ([operands[index] for index in used], str(renumbered)))


def _merge(operands: list[Node], expr: Expr, position: int) -> tuple[list[Node], Expr]:
    """The operand at ``position``, an elementwise node, written out."""
    inner_operands, inner = _read(operands[position])
    merged = list(dict.fromkeys([*operands[:position], *inner_operands, *operands[position + 1 :]]))
    inner = substitute(inner, {index: Operand(merged.index(operand)) for index, operand in enumerate(inner_operands)})
    outer: dict[int, Expr] = {
        index: Operand(merged.index(operand)) for index, operand in enumerate(operands) if index != position
    }
    return merged, substitute(expr, {**outer, position: inner})


def _uses(expr: Expr, operand: Operand) -> int:
    return sum(_uses(arg, operand) for arg in expr.args) if isinstance(expr, Call) else int(expr == operand)


def _parent(expr: Expr, operand: Operand) -> Call | None:
    """The call that has the operand, which occurs once, as an argument."""
    if not isinstance(expr, Call):
        return None
    return (
        expr
        if operand in expr.args
        else next((found for arg in expr.args if (found := _parent(arg, operand)) is not None), None)
    )


def _put(expr: Expr, old: Call, new: Expr) -> Expr:
    """The expression with one call in it replaced."""
    if expr == old:
        return new
    return Call(expr.function, tuple(_put(arg, old, new) for arg in expr.args)) if isinstance(expr, Call) else expr
