"""What looks at the graph after each pass: dumps, prints, verification."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor
from torch.fx import GraphModule

from pcc.errors import PccError
from pcc.ir.dump import dump_graph
from pcc.ir.left_alone import by_reason, left_alone
from pcc.ir.printer import print_graph
from pcc.ir.verify import TOLERANCE, relative_error, run_graph, verify_structure
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

    A lossy pass only has its error recorded; what it leaves is what later exact passes are measured against.
    """

    graph_module: GraphModule
    """The graph before the first pass."""
    inputs: Sequence[Tensor]
    results: list[Verified] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        verify_structure(self.graph_module)
        self._expected = run_graph(self.graph_module, self.inputs)

    def __call__(self, event: PassEvent) -> None:
        step = event.step
        try:
            verify_structure(event.graph_module)
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
        if not step.exact:
            self._expected = actual


@dataclass
class NotePruning:
    """Notes each lossy pass that changed nothing, although someone asked for it, and why."""

    warnings: list[str] = field(default_factory=list, init=False)

    def __call__(self, event: PassEvent) -> None:
        if not event.step.exact and not event.modified:
            layers = [layer for layer in left_alone(event.graph_module) if layer.pass_name == event.step.name]
            reasons = "; ".join(line.removeprefix(f"{event.step.name}: ") for line in by_reason(layers))
            self.warnings.append(f"{event.step.name} changed nothing: {reasons or 'the network has no convolution'}")
