"""What looks at the graph after each pass: dumps, prints, verification."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from pcc.dtype import REALS
from pcc.errors import PccError
from pcc.ir.dump import dump_graph
from pcc.ir.graph import layer_name
from pcc.ir.left_alone import by_reason, left_alone
from pcc.ir.printer import print_graph
from pcc.ir.verify import TOLERANCE, as_taken, relative_error, run_graph, verify_structure
from pcc.passes.manager import PassEvent


@dataclass(frozen=True)
class DumpAfterEach:
    """``--dump-ir``: a file after each pass."""

    directory: Path

    def __call__(self, event: PassEvent) -> None:
        dump_graph(self.directory, event.index, event.step.name, event.graph_module)


@dataclass(frozen=True)
class PrintAfter:
    """``--print-ir-after``: the graph after the pass of that name, or after ``all``."""

    pass_name: str
    write: Callable[[str], object] = print

    def __call__(self, event: PassEvent) -> None:
        if self.pass_name in ("all", event.step.name):
            self.write(f"// after {event.step.name}\n{print_graph(event.graph_module)}")


@dataclass(frozen=True)
class Verified:
    """What verification found after a pass."""

    pass_name: str
    exact: bool
    error: float
    """Relative, against the graph after the last lossy pass (for a lossy pass: before it)."""


@dataclass
class VerifyEach:
    """``--verify-each``: the graph must stay well formed, and an exact pass may not change what it computes by more
    than 1e-4.

    A lossy pass only has its error recorded, unless it makes infinities or NaN of finite numbers; what it leaves is
    what later exact passes are measured against.

    A model may have types that pcc does not compile: then `pcc.frontend.supported.refuse_unsupported` comes first,
    after canonicalize.
    """

    graph_module: GraphModule
    """The graph before the first pass."""
    inputs: Sequence[Tensor]
    results: list[Verified] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._is_foreign = _has_other_types(self.graph_module)
        self._verify_structure(self.graph_module)
        self._expected = run_graph(self.graph_module, self.inputs)

    def __call__(self, event: PassEvent) -> None:
        step = event.step
        self._is_foreign &= step.name != "canonicalize"
        try:
            self._verify_structure(event.graph_module)
        except PccError as error:
            raise PccError(f"pass {step.name} left a graph that is not well formed: {error}") from error
        actual = run_graph(event.graph_module, self.inputs)
        error = relative_error(actual, self._expected)
        self.results.append(Verified(step.name, step.exact, error))
        if step.exact and not error <= TOLERANCE:
            raise PccError(
                f"pass {step.name} changed what the graph computes: relative error {error:.2g} where an exact pass may "
                f"cause {TOLERANCE:g}"
                " (--no-verify compiles it all the same)"
            )
        if not step.exact and any(map(_overflowed, actual, self._expected)):
            first = _first_overflow(event.graph_module, self.inputs)
            raise PccError(
                f"pass {step.name} makes infinities or NaN of finite numbers"
                f"{f', first in {first}' if first else ''} (--no-verify compiles it all the same)"
            )
        if not step.exact:
            self._expected = actual

    def _verify_structure(self, graph_module: GraphModule) -> None:
        if not self._is_foreign:
            verify_structure(graph_module)


def _has_other_types(graph_module: GraphModule) -> bool:
    """Whether a graph computes in floating-point types that pcc does not compile."""
    values = [value for node in graph_module.graph.nodes for value in pytree.tree_leaves(node.meta.get("val"))]
    types = {value.dtype for value in values if isinstance(value, Tensor) and value.is_floating_point()}
    return not types <= {dtype.torch for dtype in REALS}


def _overflowed(actual: Tensor, expected: Tensor) -> bool:
    return actual.shape == expected.shape and bool((~actual.isfinite() & expected.isfinite()).any())


class _FirstOverflow(Interpreter):
    """Runs a graph and notes the first node that gives infinities or NaN although it reads and names none."""

    found = ""

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if n.op == "call_function" and not self.found and isinstance(result, Tensor) and not result.isfinite().all():
            read = [self.env[operand] for operand in n.all_input_nodes]
            if "inf" not in str(n.args) and all(value.isfinite().all() for value in read):
                self.found = f"layer {layer_name(n)}"
        return result


def _first_overflow(graph_module: GraphModule, inputs: Sequence[Tensor]) -> str:
    running = _FirstOverflow(graph_module)
    with torch.no_grad():
        running.run(*as_taken(graph_module, inputs))
    return running.found


@dataclass
class NotePruning:
    """Notes each lossy pass that changed nothing, although someone asked for it, and why."""

    warnings: list[str] = field(default_factory=list, init=False)

    def __call__(self, event: PassEvent) -> None:
        if not event.step.exact and not event.modified:
            layers = [layer for layer in left_alone(event.graph_module) if layer.pass_name == event.step.name]
            reasons = "; ".join(line.removeprefix(f"{event.step.name}: ") for line in by_reason(layers))
            missing = f"the network has no {getattr(event.step, 'works_on', 'convolution')}"
            self.warnings.append(f"{event.step.name} changed nothing: {reasons or missing}")
