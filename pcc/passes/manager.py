"""Runs passes over a graph, times them, and lets instruments look at the graph after each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import ClassVar, Literal, Protocol, runtime_checkable

from torch.fx import GraphModule
from torch.fx.passes.infra.pass_base import PassResult

from pcc.errors import PccError
from pcc.ir.annotations import forget_skips


@runtime_checkable
class GraphPass(Protocol):
    """A rewrite of the graph: a frozen dataclass whose fields are its options and whose first doc line says what it
    does.

    ``name`` is kebab-case; ``exact`` says whether the graph computes the same afterwards up to rounding (lossy passes:
    pruning). A pass changes the graph in place or makes a new one, keeps ``node.meta["val"]`` right on every node it
    adds, carries annotations of nodes it replaces (`pcc.ir.annotations.carry`), and annotates a node it had to leave
    alone with `pcc.ir.annotations.Skipped`.
    """

    name: ClassVar[str]
    exact: ClassVar[bool]

    def __call__(self, graph_module: GraphModule, /) -> PassResult: ...


def pass_level(step: object) -> Literal["graph", "program"]:
    """What a pass works on: the graph, or the kernel program that comes after it (ClassVar ``level``; graph when it
    does not say)."""
    return getattr(step, "level", "graph")


@dataclass(frozen=True)
class PassEvent:
    """A pass has run."""

    step: GraphPass
    index: int
    """Its place in the pipeline, from 1; 0 is the imported graph."""
    graph_module: GraphModule
    modified: bool
    seconds: float


Instrument = Callable[[PassEvent], None]
"""Called after each pass: dumps, prints, verifies."""


@dataclass
class PassManager:
    """``PassManager([Canonicalize(), FoldBatchnorm()])(graph_module)``: the passes in order, on the graph that is given
    (it is changed)."""

    passes: Sequence[GraphPass]
    instruments: Sequence[Instrument] = ()
    seconds: dict[str, float] = field(default_factory=dict, init=False)
    """Time each pass of the last run took, in order; a pass that runs twice has both times added."""

    def __call__(self, graph_module: GraphModule) -> PassResult:
        self.seconds.clear()
        any_modified = False
        for index, step in enumerate(self.passes, start=1):
            if pass_level(step) != "graph":
                raise PccError(
                    f"pass {step.name} works on the kernel program, not on the graph: it belongs at the end of the "
                    "pipeline"
                )
            for node in graph_module.graph.nodes:
                forget_skips(node, step.name)
            start = perf_counter()
            try:
                result = step(graph_module)
            except PccError as error:
                raise PccError(f"pass {step.name}: {error}") from error
            except Exception as error:
                raise RuntimeError(f"pass {step.name} failed: {type(error).__name__}: {error}") from error
            elapsed = perf_counter() - start
            self.seconds[step.name] = self.seconds.get(step.name, 0.0) + elapsed
            graph_module = result.graph_module
            any_modified |= result.modified
            for instrument in self.instruments:
                instrument(PassEvent(step, index, graph_module, result.modified, elapsed))
        return PassResult(graph_module, any_modified)
