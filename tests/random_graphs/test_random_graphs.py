"""Random networks through pcc: the graph computes what PyTorch and ONNX Runtime compute, and the machine code what the
graph does.

``--graphs N`` draws N of each kind: ``pytest tests/random_graphs -m slow --graphs 5000``; the same ones each time,
others for each ``--hypothesis-seed``.
"""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from torch.fx import GraphModule

from pcc.codegen.interpret import interpret
from pcc.codegen.native import run_native
from pcc.codegen.plan_memory import PlanMemory
from pcc.errors import PccError
from pcc.ir.verify import run_graph
from pcc.passes.spell_out import SpellOut
from pcc.target import host_cpu, target_named
from tests.arm64 import arm64, run_emulated
from tests.random_graphs.builder import Builder, Network
from tests.random_graphs.check import EXACT, PRUNED, differences, passed, program
from tests.random_graphs.onnx_builder import OnnxBuilder
from tests.random_graphs.onnx_nodes import draw as draw_model
from tests.random_graphs.torch_steps import draw as draw_network
from tests.random_graphs.torch_steps import draw_channels

HOST = target_named("x86_64-linux", host_cpu())
ARM64 = target_named("aarch64-linux")


@pytest.fixture
def each(request: pytest.FixtureRequest) -> Callable[[Callable[[Random], None], int], None]:
    """``each(check, count)`` checks that many draws, or as many as ``--graphs`` says; a failure is made small before it
    is shown."""

    def run(check: Callable[[Random], None], count: int) -> None:
        chosen = settings(
            max_examples=request.config.getoption("--graphs") or count,
            derandomize=request.config.getoption("--hypothesis-seed") is None,
            database=None,
            suppress_health_check=[
                HealthCheck.too_slow,
                HealthCheck.filter_too_much,
                HealthCheck.data_too_large,
                HealthCheck.large_base_example,
            ],
            phases=(Phase.generate, Phase.shrink),
        )
        chosen(given(st.randoms(use_true_random=False))(check))()

    return run


def check_network(random: Random) -> None:
    """A PyTorch module: imported, after all exact passes, and spelled out again."""
    builder = Builder(random)
    check_drawn(builder, draw_network(builder))


def check_dead_filters(random: Random) -> None:
    """The same, of layers and what moves channels about, with half of all filters dead."""
    builder = Builder(random, dead=0.5)
    check_drawn(builder, draw_channels(builder))


def check_drawn(builder: Builder, network: Network) -> None:
    network.eval()
    with torch.no_grad():
        wanted = network(*builder.inputs)
    graph_module = passed(network, builder.inputs)
    assert differences(run_graph(graph_module, builder.inputs), wanted) == []
    assert differences(run_graph(SpellOut()(graph_module).graph_module, builder.inputs), wanted) == []


def check_model(random: Random) -> None:
    """An ONNX model, against ONNX Runtime, which ran each node by itself."""
    builder = draw_model(OnnxBuilder(random))
    model = builder.model()
    inputs = [torch.from_numpy(x) for x in builder.inputs.values()]
    assert differences(run_graph(passed(model, None), inputs), builder.expected(model)) == []


def compilable(builder: OnnxBuilder, pipeline: str) -> GraphModule:
    """A model's graph after passes; a model that is too small for what is asked of pruning is not drawn."""
    try:
        return passed(builder.model(), None, pipeline)
    except PccError as error:
        assume("no layer can be pruned" not in str(error))
        raise


def check_code(pipeline: str) -> Callable[[Random], None]:
    """Its kernel program, interpreted and as machine code, computes what its graph does; work is split as among
    threads."""

    def check(random: Random) -> None:
        builder = draw_model(OnnxBuilder(random))
        inputs = [torch.from_numpy(x) for x in builder.inputs.values()]
        graph_module = compilable(builder, pipeline)
        wanted = run_graph(graph_module, inputs)
        planned, arrays = PlanMemory()(program(graph_module, HOST)), [x.numpy() for x in inputs]
        assert differences(interpret(planned, arrays, parts=2), wanted) == []
        assert differences(run_native(planned, arrays, HOST, parts=3), wanted) == []

    return check


def test_networks(each: Callable[..., Any]) -> None:
    each(check_network, 10)


def test_networks_with_dead_filters(each: Callable[..., Any]) -> None:
    each(check_dead_filters, 10)


def test_models(each: Callable[..., Any]) -> None:
    each(check_model, 30)


def test_code(each: Callable[..., Any]) -> None:
    each(check_code(EXACT), 3)


@pytest.mark.slow
def test_more_networks(each: Callable[..., Any]) -> None:
    each(check_network, 300)


@pytest.mark.slow
def test_more_networks_with_dead_filters(each: Callable[..., Any]) -> None:
    each(check_dead_filters, 300)


@pytest.mark.slow
def test_more_models(each: Callable[..., Any]) -> None:
    each(check_model, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", [EXACT, PRUNED], ids=["dense", "pruned"])
def test_more_code(pipeline: str, each: Callable[..., Any]) -> None:
    each(check_code(pipeline), 100)


@arm64
@pytest.mark.slow
@pytest.mark.parametrize("pipeline", [EXACT, PRUNED], ids=["dense", "pruned"])
def test_code_for_arm64(pipeline: str, each: Callable[..., Any]) -> None:
    def check(random: Random) -> None:
        builder = draw_model(OnnxBuilder(random))
        inputs = [torch.from_numpy(x) for x in builder.inputs.values()]
        graph_module = compilable(builder, pipeline)
        wanted = run_graph(graph_module, inputs)
        for got in run_emulated(
            program(graph_module, ARM64), [x.numpy() for x in inputs], cpus=("cortex-a76",)
        ).values():
            assert differences(got, wanted) == []

    each(check, 20)
