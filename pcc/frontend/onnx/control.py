"""If, Loop and Scan whose course is known when compiling: the branch that is taken, the steps one after the other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch
from torch import Tensor

from pcc.frontend.onnx.emitter import AlreadyRefused, Emitter, Refused, Value, number, rank, shape
from pcc.frontend.onnx.refused import refusal

if TYPE_CHECKING:
    from pcc.frontend.onnx.importer import ModelImport

_aten: Any = torch.ops.aten

MOST_STEPS = 1000
"""Each step is written out."""

_OPEN = (
    "what it computes next depends on the values of the model's input; pcc compiles models whose operators are always "
    "the same"
)


def run_if(model: "ModelImport", node: ir.Node) -> None:
    """The branch that it takes."""
    _check_inputs(node, 1)
    condition = _value(model, node.inputs[0])
    if not isinstance(condition, Tensor):
        raise Refused(_OPEN)
    _check_attributes(node, "then_branch", "else_branch")
    taken = node.attributes["then_branch" if bool(condition) else "else_branch"].as_graph()
    for outer, result in zip(node.outputs, body(model, taken, []), strict=True):
        model.set(outer, result)


def run_loop(model: "ModelImport", node: ir.Node) -> None:
    """A loop of known length: ``(trip count, condition, state...)`` gives the state, and what each step adds, stacked.
    Without a condition what the body says of it does not count."""
    _check_inputs(node, 2)
    limit, condition, *state = (_value(model, value) for value in node.inputs)
    most = None if limit is None else int(number(limit, "its number of steps is"))
    _check_attributes(node, "body")
    steps = node.attributes["body"].as_graph()
    more, step, rows = condition, 0, []
    while (most is None or step < most) and (more is None or bool(_condition(more))):
        _check_steps(step)
        said, *results = body(model, steps, [torch.tensor(step), torch.tensor(True), *state])
        more = None if condition is None else said
        state, added = results[: len(state)], results[len(state) :]
        rows.append(added)
        step += 1
    if not rows and len(node.outputs) > len(state):
        raise Refused("no step, so that what its steps add is empty")
    collected = [_stacked(model.emit, list(parts), 0) for parts in zip(*rows, strict=True)]
    for outer, result in zip(node.outputs, [*state, *collected], strict=True):
        model.set(outer, result)


def run_scan(model: "ModelImport", node: ir.Node) -> None:
    """Steps along an axis of its inputs: ``(state..., inputs...)`` gives the state, and what each step adds,
    stacked."""
    if model.emit.opset < 9:
        raise Refused("Scan of opset 8; export the model with a newer one")
    _check_attributes(node, "num_scan_inputs", "body")
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    count = int(attributes["num_scan_inputs"])
    values = [_value(model, value) for value in node.inputs]
    state, inputs = values[: len(values) - count], values[len(values) - count :]
    axes, backwards = (
        _numbers(attributes, "scan_input_axes", count),
        _numbers(attributes, "scan_input_directions", count),
    )
    axes = [axis % rank(x) for axis, x in zip(axes, inputs, strict=True)]
    steps = shape(inputs[0])[axes[0]]
    _check_steps(steps - 1)
    rows = []
    for step in range(steps):
        parts = [
            model.emit.call(_aten.select.int, x, axis, steps - 1 - step if back else step)
            for x, axis, back in zip(inputs, axes, backwards, strict=True)
        ]
        results = body(model, node.attributes["body"].as_graph(), [*state, *parts])
        state, added = results[: len(state)], results[len(state) :]
        rows.append(added)
    added = [list(parts) for parts in zip(*rows, strict=True)]
    out_axes, reverse = (
        _numbers(attributes, "scan_output_axes", len(added)),
        _numbers(attributes, "scan_output_directions", len(added)),
    )
    collected = [
        _stacked(model.emit, part[::-1] if back else part, axis)
        for part, axis, back in zip(added, out_axes, reverse, strict=True)
    ]
    for outer, result in zip(node.outputs, [*state, *collected], strict=True):
        model.set(outer, result)


RUN = {"If": run_if, "Loop": run_loop, "Scan": run_scan}


def _value(model: "ModelImport", value: ir.Value | None) -> Any:
    return None if value is None else model.values[value]


def _check_inputs(node: ir.Node, count: int) -> None:
    if len(node.inputs) < count:
        raise Refused(f"its input {len(node.inputs)} is missing")


def _check_attributes(node: ir.Node, *names: str) -> None:
    missing = [name for name in names if name not in node.attributes]
    if missing:
        raise Refused(f"the attribute {missing[0]} is missing")


def _condition(value: Value) -> Tensor:
    if not isinstance(value, Tensor):
        raise Refused(f"when it ends is computed from the model's input: {_OPEN}")
    return value


def _check_steps(step: int) -> None:
    if step >= MOST_STEPS:
        raise Refused(f"more than {MOST_STEPS} steps, each of which would be written out")


def body(model: "ModelImport", graph: ir.Graph, values: Sequence[Value]) -> list[Value]:
    """What a part of the model gives for some inputs. Where it cannot be computed, `AlreadyRefused` if a node of it is
    refused, which is noted by its own name."""
    for inner, value in zip(graph.inputs, values, strict=True):
        model.values[inner] = value
    model.graph(graph)
    if any(inner in model.failed for inner in graph.outputs):
        raise AlreadyRefused
    for inner in graph.outputs:
        if not model.has(inner):
            raise Refused(f"nothing computes '{inner.name}' in the part of the model that it runs")
    return [model.values[inner] for inner in graph.outputs]


def check_passed(emit: Emitter, values: Sequence[Value | None]) -> None:
    """`Refused` for rows and their number, which a step might take apart."""
    for value in values:
        if mark := emit.marks.get(value):
            raise refusal(mark)


def _stacked(emit: Emitter, parts: list[Value], axis: int) -> Value:
    check_passed(emit, parts)
    return emit.call(_aten.stack.default, parts, axis)


def _numbers(attributes: dict[str, Any], name: str, count: int) -> list[int]:
    return [int(value) for value in attributes.get(name) or [0] * count]
