"""``torch.export`` of a module. Whatever stops it, and whatever of the model pcc could only compile wrongly, is one
line with the model's source line."""

import io
import logging
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch._ops import HigherOrderOperator
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.fx import Graph, Node
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from pcc.errors import PccError
from pcc.frontend.advice import RANDOM, advice
from pcc.frontend.modes import inline_modes
from pcc.frontend.source_lines import line_of_error, line_of_node
from pcc.ir.graph import arguments, is_random

_BY_VALUE = (GuardOnDataDependentSymNode, DataDependentOutputException, DynamicOutputShapeException)


def export(module: nn.Module, example_inputs: tuple[Tensor, ...]) -> ExportedProgram:
    """The functional graph of a module: no in-place updates, every shape known.

    Raises `PccError` if the module cannot be exported, depends on the values of its inputs, or draws random numbers.
    """
    with _one_line(module, example_inputs):
        exported = torch.export.export(module, example_inputs, strict=False)
        inline_modes(exported)
    _refuse(exported.graph)
    with _one_line(module, example_inputs):
        # An empty table changes no operator; it makes the graph functional: no in-place updates, no views that are
        # written through.
        return exported.run_decompositions({})


def refuse_branches(module: nn.Module, example_inputs: tuple[Tensor, ...], max_batch: int) -> None:
    """`PccError` if the module's Python code takes other ways for some batches up to ``max_batch``: torch.export
    follows it with the batch left open."""
    batch = Dim("batch", min=1, max=max_batch)
    shapes: Any = ShapesCollection()
    for example in example_inputs:
        shapes[example] = {0: batch}
    try:
        with torch.no_grad(), quiet():
            torch.export.export(module, example_inputs, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        line = line_of_error(error)
        reason = (
            "its code takes another way for some of them" if "Constraints violated" in str(error) else _reason(error)
        )
        raise PccError(
            f"{type(module).__name__} does not do the same for every batch of 1 to {max_batch} "
            f"images{f' at {line}' if line else ''}: {reason}"
        ) from error


@contextmanager
def _one_line(module: nn.Module, example_inputs: tuple[Tensor, ...]) -> Generator[None]:
    """The model's code and torch.export run in the block; whatever they raise becomes a `PccError`."""
    try:
        with torch.no_grad(), quiet():
            yield
    except Exception as error:
        line = line_of_error(error)
        place = f" at {line}" if line else ""
        raise PccError(
            f"cannot export {type(module).__name__} for inputs {[tuple(x.shape) for x in example_inputs]}{place}: "
            f"{_reason(error)}"
        ) from error


@contextmanager
def quiet() -> Generator[None]:
    """No warnings, log lines or graphs on standard error: what matters of a failed export is in the exception. What the
    model itself prints goes there, for standard output belongs to the caller."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _reason(error: Exception) -> str:
    if isinstance(error, _BY_VALUE):
        return (
            "what it computes next depends on the values of its input; pcc compiles models whose operators and shapes "
            "are always the same"
        )
    if isinstance(error, TorchDynamoException):
        return (
            "torch.cond and its like, control flow that depends on the values of its input; pcc compiles models whose "
            "operators are always the same"
        )
    return str(error).strip().split("\n", 1)[0] or type(error).__name__


def _refuse(graph: Graph) -> None:
    """`PccError` naming every operator of an exported graph after which shapes or values are not fixed by the
    inputs."""
    found = [(node, reason) for node in graph.nodes if node.op == "call_function" and (reason := _unfixed(node))]
    if found:
        listed = "; ".join(
            f"{node.target} ({f'at {line}: ' if (line := line_of_node(node)) else ''}{reason})"
            for node, reason in found
        )
        raise PccError(
            f"pcc cannot compile {len(found)} operator{'s' if len(found) > 1 else ''} of this model: {listed}"
        )


def _unfixed(node: Node) -> str | None:
    """Why a call is not the same each time the model runs, if it is not."""
    target: Any = node.target
    if isinstance(target, HigherOrderOperator):
        return "runs a part of the model by itself, as control flow and autocast do; pcc compiles plain operators"
    if _is_symbolic(node):
        first = not any(_is_symbolic(operand) for operand in node.all_input_nodes)
        return (
            advice(target) or "a number or a shape that is known only when the model runs"
            if first and not _is_assertion(node)
            else None
        )
    if is_random(node) and not _is_switched_off(node):
        dropout = "train" in arguments(node) or "training" in arguments(node)
        return (
            f"{'dropout' if 'dropout' in str(target) else 'noise'} in training mode: pass training=self.training"
            if dropout
            else RANDOM
        )
    return None


def _is_symbolic(node: Node) -> bool:
    """Whether a node's value is a number, or has a size, that is known only when the model runs."""
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else (value,)
    numbers = [size for part in values for size in (part.shape if isinstance(part, Tensor) else (part,))]
    return any(isinstance(number, torch.SymInt | torch.SymFloat | torch.SymBool) for number in numbers)


def _is_assertion(node: Node) -> bool:
    return "assert" in str(node.target)


def _is_switched_off(node: Node) -> bool:
    """A dropout or noise in evaluation mode, or with probability 0."""
    bound = arguments(node)
    return (
        bound.get("train") is False
        or bound.get("training") is False
        or bound.get("p") == 0
        or bound.get("dropout_p") == 0
    )
