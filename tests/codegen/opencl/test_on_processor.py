"""What a GPU's program leaves to the processor: which layers, by costs or because somebody asks, and with which
calls."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import nn

from pcc.codegen.emit_device_c import DEVICE_DIMS, merged_dims
from pcc.codegen.isa import isa_named
from pcc.codegen.lower import lower
from pcc.codegen.opencl.lower import lower_device
from pcc.codegen.plan_memory import PlanMemory
from pcc.codegen.print_program import print_program
from pcc.codegen.select_kernels import SelectKernels
from pcc.errors import PccError
from pcc.frontend.torch_module import import_module
from pcc.ir.annotations import OnProcessor, annotation
from pcc.ir.graph import layer_name
from pcc.package.toolchain import RUNTIME
from pcc.passes.manager import PassManager
from pcc.passes.pipeline import parse_pipeline
from pcc.planner import Chooser, GpuPlan, leave_to_processor
from pcc.target import Gpu, target_named
from tests.nets_on_processor import DETECTOR_SHAPE, MIDDLE_SHAPE, Detector, Middle
from tests.opencl_program import GRAPH_PASSES, device_graph

CPU = "cortex-a76"


def planned(
    module: nn.Module, shape: Sequence[int], asked: Sequence[str] | None = None, profile: str = "adreno-6xx"
) -> GpuPlan:
    """A module's program for a GPU beside a Cortex-A76."""
    examples = (torch.randn(*shape),)
    gpu = device_graph(module, examples, profile)
    passes = [*parse_pipeline(GRAPH_PASSES), SelectKernels(CPU)]
    graph = PassManager(passes)(import_module(module.eval(), examples)).graph_module
    target = replace(
        target_named("aarch64-linux", CPU), gpu=Gpu("opencl", (profile,), None if asked is None else tuple(asked))
    )
    program = PlanMemory()(lower(graph, "net", isa_named(target.isa)))
    return leave_to_processor(
        GpuPlan(gpu, lower_device(gpu, "net")), profile, target, graph, program, Chooser(CPU, "", "")
    )


def on_processor(plan: GpuPlan) -> list[str]:
    """The layers that are left to the processor, those without calls there included."""
    return [layer_name(node) for node in plan.graph.graph.nodes if annotation(node, OnProcessor)]


def calls(plan: GpuPlan) -> list[str]:
    return [call.kernel.name for call in plan.program.calls if call.is_on_host]


def test_program_text(golden: Callable[[str, str], None]) -> None:
    golden(print_program(planned(Middle(), MIDDLE_SHAPE, ["mid", "fc"]).program), "on_processor")


def test_costs_leave_what_has_few_items() -> None:
    plan = planned(Detector(), DETECTOR_SHAPE)
    left = on_processor(plan)
    assert {"nms", "top_k"} <= set(left)
    assert not {"c1", "c2"} & set(left)
    place = next(found for node in plan.graph.graph.nodes if (found := annotation(node, OnProcessor)))
    assert place.gpu > 2 * (place.processor + place.crossing)
    assert not place.asked
    assert calls(plan).count("copy-to-processor") == 1
    assert calls(plan).count("copy-to-gpu") == 2


class Classifier(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.hidden, self.fc = nn.Linear(8 * 15 * 15, width), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.hidden(torch.relu(self.conv(x)).flatten(1)))).softmax(1)


def test_costs_leave_small_linear_layers_at_the_end() -> None:
    assert {"hidden", "fc"} <= set(on_processor(planned(Classifier(64), (1, 3, 32, 32))))


def test_a_program_that_leaves_nothing_is_the_gpus_alone() -> None:
    for asked in (["none"], None):
        plan = planned(nn.Conv2d(3, 8, 3), (1, 3, 32, 32), asked)
        assert plan.host is None
        assert not on_processor(plan)


def test_what_is_there_is_not_copied_again() -> None:
    """Both ends of the residual stay in the arena; views go with what they look at."""
    plan = planned(Middle(), MIDDLE_SHAPE, ["c1", "mid"])
    assert on_processor(plan) == ["c1", "view", "mid", "view_1"]
    assert [name for name in calls(plan) if name.startswith("copy")] == ["copy-to-processor", "copy-to-gpu"]
    apart = planned(Middle(), MIDDLE_SHAPE, ["c1", "fc"])
    assert [name for name in calls(apart) if name.startswith("copy")] == ["copy-to-processor", "copy-to-gpu"] * 2


class Twice(nn.Module):
    """Two layers whose kernels on the processor read one staged input."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 8, 5, padding=2), nn.Conv2d(4, 8, 5, padding=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(x)
        return self.a(x) * self.b(x)


def pooled() -> nn.Module:
    """On the processor a kernel computes the convolution and the pool."""
    layers = nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 8, 1)
    return nn.Sequential(*layers)


def test_layers_of_one_kernel_go_together() -> None:
    plan = planned(pooled(), (1, 16, 32, 32), ["0"])
    assert [name.startswith("copy") for name in calls(plan)] == [True, False, True]


@pytest.mark.parametrize(
    ("module", "shape", "asked", "reason"),
    [
        (
            pooled(),
            (1, 16, 32, 32),
            ["2"],
            "layer '2' cannot be left to the processor without others: one of the two has a kernel for several layers "
            "there",
        ),
        (Middle(), MIDDLE_SHAPE, ["nothing"], "no layer is named 'nothing' (pcc inspect MODEL lists them)"),
        (Middle(), MIDDLE_SHAPE, ["*"], "all layers would be left to the processor: compile without code for a GPU"),
        (
            Twice(),
            (1, 4, 8, 8),
            ["b"],
            "layer 'b' cannot be left to the processor: its kernel reads what another layer's call writes",
        ),
    ],
)
def test_refused(module: nn.Module, shape: Sequence[int], asked: list[str], reason: str) -> None:
    with pytest.raises(PccError) as refused:
        planned(module, shape, asked)
    assert str(refused.value) == reason


@pytest.mark.parametrize(
    ("shape", "first", "second", "dims"),
    [
        ((1, 8, 4, 4), (128, 16, 4, 1), (256, 16, 4, 1), [(128, 1, 1)]),
        ((2, 8, 4, 4), (128, 16, 4, 1), (256, 16, 4, 1), [(2, 128, 256), (128, 1, 1)]),
        ((1, 3, 8, 8), (480, 160, 16, 1), (192, 64, 8, 1), [(3, 160, 64), (8, 16, 8), (8, 1, 1)]),
        ((1, 1), (7, 1), (9, 1), []),
    ],
)
def test_dimensions_merge(
    shape: tuple[int, ...], first: tuple[int, ...], second: tuple[int, ...], dims: list[tuple[int, ...]]
) -> None:
    assert merged_dims(shape, first, second) == dims


def test_the_runtime_knows_as_many_dimensions() -> None:
    assert f"PCC_DEVICE_DIMS = {DEVICE_DIMS} " in (RUNTIME / "device.h").read_text()
