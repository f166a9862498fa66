"""The pass manager and its instruments."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch.fx import GraphModule
from torch.fx.passes.infra.pass_base import PassResult

from pcc.errors import PccError
from pcc.frontend.torch_module import import_module
from pcc.ir.annotations import Skipped, annotate, skips
from pcc.ir.graph import constant
from pcc.passes.canonicalize import Canonicalize
from pcc.passes.instruments import DumpAfterEach, PrintAfter, VerifyEach
from pcc.passes.manager import GraphPass, PassEvent, PassManager
from tests.nets import make


@dataclass(frozen=True)
class Scale:
    """Multiplies every bias: a pass that changes what the graph computes."""

    name: ClassVar[str] = "scale"
    exact: ClassVar[bool] = True
    by: float = 1.0

    def __call__(self, graph_module: GraphModule) -> PassResult:
        for node in graph_module.graph.find_nodes(op="get_attr"):
            if str(node.target).endswith("bias"):
                constant(node).mul_(self.by)
        return PassResult(graph_module, self.by != 1.0)


@dataclass(frozen=True)
class LossyScale(Scale):
    """The same, and says so."""

    name: ClassVar[str] = "lossy-scale"
    exact: ClassVar[bool] = False


@dataclass(frozen=True)
class Raises:
    """Fails."""

    name: ClassVar[str] = "raises"
    exact: ClassVar[bool] = True
    error: Exception

    def __call__(self, graph_module: GraphModule) -> PassResult:
        raise self.error


@dataclass(frozen=True)
class ForPrograms:
    """Works on the program."""

    name: ClassVar[str] = "for-programs"
    exact: ClassVar[bool] = True
    level: ClassVar[str] = "program"

    def __call__(self, graph_module: GraphModule) -> PassResult:
        raise NotImplementedError


@pytest.fixture
def imported() -> tuple[GraphModule, tuple[torch.Tensor, ...]]:
    net, inputs = make("squeeze_excite")
    return import_module(net, inputs), inputs


def test_order_times_and_events(imported) -> None:
    events: list[PassEvent] = []
    manager = PassManager([Scale(), Canonicalize(), Scale(2.0)], [events.append])
    result = manager(imported[0])
    assert [(event.index, event.step.name, event.modified) for event in events] == [
        (1, "scale", False),
        (2, "canonicalize", True),
        (3, "scale", True),
    ]
    assert result.modified
    assert list(manager.seconds) == ["scale", "canonicalize"]
    assert all(isinstance(event.step, GraphPass) and event.seconds >= 0 for event in events)


def test_errors_name_the_pass(imported) -> None:
    with pytest.raises(PccError, match="pass raises: layer conv1 has no name"):
        PassManager([Raises(PccError("layer conv1 has no name"))])(imported[0])
    with pytest.raises(RuntimeError, match="pass raises failed: ZeroDivisionError: oops") as caught:
        PassManager([Raises(ZeroDivisionError("oops"))])(imported[0])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_pass_that_runs_again_takes_back_what_it_said(imported) -> None:
    node = imported[0].graph.find_nodes(op="call_function", target=torch.ops.aten.conv2d.default)[0]
    for name in ("scale", "other"):
        annotate(node, Skipped(name, "too small"))
    PassManager([Scale()])(imported[0])
    assert list(skips(node)) == [Skipped("other", "too small")]


def test_program_passes_are_refused(imported) -> None:
    with pytest.raises(PccError, match="for-programs works on the kernel program"):
        PassManager([ForPrograms()])(imported[0])


def test_dumps_and_prints(imported, tmp_path: Path) -> None:
    printed: list[str] = []
    write: Callable[[str], object] = printed.append
    PassManager(
        [Scale(), Canonicalize()],
        [DumpAfterEach(tmp_path), PrintAfter("canonicalize", write), PrintAfter("all", write)],
    )(imported[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["001_scale.txt", "002_canonicalize.txt"]
    assert [text.split("\n")[0] for text in printed] == [
        "// after scale",
        "// after canonicalize",
        "// after canonicalize",
    ]
    assert printed[1].endswith((tmp_path / "002_canonicalize.txt").read_text())


def test_verify_each_measures_lossy_passes_and_stops_wrong_ones(imported) -> None:
    graph_module, inputs = imported
    verify = VerifyEach(graph_module, inputs)
    PassManager([Canonicalize(), LossyScale(1.5), Scale(1.0)], [verify])(graph_module)
    assert [(found.pass_name, found.exact) for found in verify.results] == [
        ("canonicalize", True),
        ("lossy-scale", False),
        ("scale", True),
    ]
    assert verify.results[0].error < 1e-6
    assert verify.results[1].error > 1e-3
    assert verify.results[2].error == 0
    with pytest.raises(
        PccError, match=r"pass scale changed what the graph computes: relative error .* may cause 0.0001"
    ):
        PassManager([Scale(1.5)], [verify])(graph_module)


def test_verify_each_finds_graphs_that_are_not_well_formed(imported) -> None:
    @dataclass(frozen=True)
    class Forgets:
        """Forgets a shape."""

        name: ClassVar[str] = "forgets"
        exact: ClassVar[bool] = True

        def __call__(self, graph_module: GraphModule) -> PassResult:
            del next(node for node in graph_module.graph.nodes if node.op == "call_function").meta["val"]
            return PassResult(graph_module, True)

    graph_module, inputs = imported
    with pytest.raises(
        PccError, match=r"pass forgets left a graph that is not well formed: node depthwise_0: no shape recorded"
    ):
        PassManager([Forgets()], [VerifyEach(graph_module, inputs)])(graph_module)
