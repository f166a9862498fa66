"""A program for any batch on numpy: in turns, at once and mixed, in one arena, it gives what the program of a fixed
batch gives."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from pcc.any_batch import import_one_image
from pcc.codegen import stages
from pcc.codegen.interpret import interpret
from pcc.codegen.isa import isa_named
from pcc.codegen.lower import lower
from pcc.codegen.plan_memory import PlanMemory, memory_lower_bound
from pcc.codegen.print_program import print_program
from pcc.codegen.program import Program
from pcc.codegen.select_kernels import SelectKernels
from pcc.frontend.torch_module import import_module
from pcc.passes.manager import PassManager
from pcc.passes.pipeline import DEFAULT_PIPELINE, parse_pipeline, split_pipeline
from tests.nets import Two, settle


def selected(graph: GraphModule) -> GraphModule:
    steps = split_pipeline(parse_pipeline(DEFAULT_PIPELINE)).graph
    return PassManager(
        [replace(step, processor="cortex-a76") if isinstance(step, SelectKernels) else step for step in steps]
    )(graph).graph_module


def inputs(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, 3, 22, 20, generator=generator), torch.randn(batch, 5, generator=generator)


@pytest.fixture(scope="module")
def graph() -> GraphModule:
    return selected(import_one_image(settle(Two(10)), inputs(1), 6).graph)


@pytest.fixture(params=[0, 80_000, 1 << 30], ids=["in turns", "mixed", "at once"])
def program(request: pytest.FixtureRequest, graph: GraphModule, monkeypatch: pytest.MonkeyPatch) -> Program:
    """The planned program; weights count for more, or less, than the activations they really have beside them."""
    monkeypatch.setattr(stages, "NEAR_BYTES", request.param)
    return PlanMemory()(lower(graph, "two", isa_named("neon")))


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("parts", [1, 2, 7])
def test_any_batch_is_the_fixed_one(program: Program, batch: int, parts: int) -> None:
    images = inputs(batch)
    with torch.no_grad():
        expected = settle(Two(10))(*images)
    found = interpret(program, [value.numpy() for value in images], parts)
    alone = [interpret(program, [value[image : image + 1].numpy() for value in images]) for image in range(batch)]
    for ours, each, theirs in zip(found, zip(*alone, strict=True), expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(
            ours, np.concatenate(each), rtol=0, atol=5e-7 * float(theirs.abs().max())
        )  # NumPy adds rows in other orders
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=5e-6 * float(theirs.abs().max()))  # Winograd's error


def test_every_call_is_in_one_stage(program: Program) -> None:
    assert [stage.begin for stage in program.stages] == [0, *(stage.end for stage in program.stages[:-1])]
    assert program.stages[-1].end == len(program.calls)
    assert memory_lower_bound(program) <= program.arena_bytes
    assert program.max_batch == 6
    assert "for batches of up to 6" in print_program(program)


def test_turns_share_memory(graph: GraphModule, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large planes have one place for all images, and the linear layers behind them run at once."""
    single = PlanMemory()(lower(selected(import_module(settle(Two(10)), inputs(1))), "two", isa_named("neon")))
    monkeypatch.setattr(stages, "NEAR_BYTES", 0)
    program = PlanMemory()(lower(graph, "two", isa_named("neon")))
    assert [stage.at_once for stage in program.stages] == [False, True]
    assert program.calls[program.stages[1].begin].layer == "hidden"
    assert program.arena_bytes < 2 * single.arena_bytes
    monkeypatch.setattr(stages, "NEAR_BYTES", 1 << 30)
    whole = PlanMemory()(lower(graph, "two", isa_named("neon")))
    assert [stage.at_once for stage in whole.stages] == [True]
    assert whole.arena_bytes > 3 * single.arena_bytes


class Unread(nn.Module):
    """Does not read its second input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8 * 22 * 20, 16)

    def forward(self, x: Tensor, unread: Tensor) -> Tensor:
        return self.fc(self.conv(x).relu().flatten(1))


def test_an_input_that_nobody_reads_overwrites_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is copied in turns, to where nothing of other images lies."""
    monkeypatch.setattr(stages, "NEAR_BYTES", 0)
    module, (x, _) = settle(Unread()), inputs(4)
    graph = selected(import_one_image(module, (x[:1], x[:1]), 4).graph)
    program = PlanMemory()(lower(graph, "unread", isa_named("neon")))
    assert [stage.at_once for stage in program.stages] == [False, True]
    (found,) = interpret(program, [x.numpy(), x.numpy()])
    with torch.no_grad():
        wanted = module(x, x).numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=5e-6 * float(np.abs(wanted).max()))


def test_rows_of_images_share_weights(program: Program) -> None:
    together = [call for call in program.calls if call.together]
    assert {call.layer for call in together} == {"hidden", "beside", "fc"}
    assert all(call.items(1) == call.items(4) == call.work and call.items(5) == 2 * call.work for call in together)


@pytest.mark.parametrize(
    ("weights", "alive", "bridged"),
    [
        ([100, 0, 60], [0, 50, 0], True),
        ([100, 0, 10], [0, 50, 0], False),  # less than both
        ([10, 0, 100], [0, 50, 0], False),
        ([100, 0, 0, 100], [0, 50, 150, 0], False),
    ],
)
def test_calls_between_two_that_are_at_once(weights: list[int], alive: list[int], bridged: bool) -> None:
    chosen = [True, *[False] * (len(weights) - 2), True]
    assert stages._bridged(chosen, weights, alive) == ([True] * len(weights) if bridged else chosen)
