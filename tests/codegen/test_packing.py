"""Weights that lie in a kernel's order, found again; and shared between programs."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from pcc.codegen.isa import isa_named
from pcc.codegen.kernels.conv_sparse_gather import GatherFamily
from pcc.codegen.kernels.conv_sparse_scatter import ScatterFamily
from pcc.codegen.kernels.dense_work import pack_weight
from pcc.codegen.lower import lower
from pcc.codegen.opencl.kernels.unlist import UnlistWeight
from pcc.codegen.packing import Packing, as_taps, places_of, plain_rows
from pcc.codegen.plan_memory import PlanMemory
from pcc.codegen.program import View
from pcc.codegen.select_kernels import SelectKernels
from pcc.codegen.share_weights import share_weights
from pcc.frontend.torch_module import import_module
from pcc.passes.manager import PassManager
from pcc.passes.pipeline import parse_pipeline
from tests.codegen.opencl.test_lower import relative_error
from tests.opencl_program import GRAPH_PASSES, device_program, interpret_device, run_program


@pytest.mark.parametrize("shape", [(7, 3, 3, 3), (8, 1, 1, 1), (1, 5, 1, 3), (12, 17, 1, 1)], ids=str)
@pytest.mark.parametrize("block", [1, 4, 16])
def test_rows(shape: tuple[int, ...], block: int) -> None:
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    packing = Packing(weight, partial(pack_weight, groups=1, block=block))
    assert packing.rows is not None
    packed = np.ascontiguousarray(packing.pack(weight)).ravel()
    assert (packed[places_of(packing.rows, as_taps(weight).shape)] == as_taps(weight)).all()
    assert (
        weight.ravel()[places_of(plain_rows(as_taps(weight).shape), as_taps(weight).shape)] == as_taps(weight)
    ).all()
    shuffled = np.random.default_rng(1).permutation(weight.size)
    if weight[0].size > 3:
        assert Packing(weight, lambda values: values.ravel()[shuffled]).rows is None


class Net(nn.Module):
    """Layers of every form that a GPU makes of weights: Winograd's, packed with and without groups, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 19, 3, padding=1), nn.Conv2d(19, 12, 1),
            nn.Conv2d(12, 12, 3, stride=2, groups=3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(12, 10),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_a_gpu_reads_the_processors_weights() -> None:
    torch.manual_seed(0)
    module, x = Net().eval(), torch.randn(1, 3, 12, 12)
    steps = [*parse_pipeline(GRAPH_PASSES), SelectKernels("avx2")]
    graph = PassManager(steps)(import_module(module, (x,))).graph_module
    of_cpu = PlanMemory()(lower(graph, "net", isa_named("avx2")))
    alone = device_program(module, [x])
    shared = share_weights(alone, [of_cpu])
    weights = {values.tobytes() for values in of_cpu.constants.values()}
    views = [call.args["weight"] for call in shared.preparation]
    read = {view.buffer for view in views if isinstance(view, View)}
    assert len(read) == 5
    assert {shared.constants[name].tobytes() for name in read} <= weights
    wanted = module.double()(x.double()).detach().numpy()
    for program in (alone, shared):
        for run in (run_program, interpret_device):
            assert relative_error(run(program, [x.numpy()])[0], wanted) < 2e-6


@pytest.mark.parametrize("share", [1, 4])
def test_a_gpu_makes_its_tables_of_the_processors_lists(share: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    for family in (GatherFamily, ScatterFamily):
        monkeypatch.setattr(family, "candidates", lambda *_: "has no lists")
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 48, 1), nn.Conv2d(48, 64, 1, stride=2), nn.Conv2d(64, 8, 1)]
    module, x = nn.Sequential(*layers).eval(), torch.randn(1, 3, 28, 28)
    pruned = GRAPH_PASSES.replace("fuse", f"prune-connectivity{{rate=8,share={share}}},detect-structure,fuse")
    steps = [*parse_pipeline(pruned), SelectKernels("avx2")]
    selected = PassManager(steps)(import_module(module, (x,))).graph_module
    of_cpu = PlanMemory()(lower(selected, "net", isa_named("avx2")))
    alone = device_program(module, [x], passes=pruned)
    shared = share_weights(alone, [of_cpu])
    assert len(of_cpu.listed) == len(alone.from_lists) == 3
    assert sum(isinstance(call.kernel, UnlistWeight) for call in shared.preparation) == 3
    of_lists = {of_cpu.constants[name].tobytes() for name in of_cpu.listed}
    assert of_lists <= {values.tobytes() for values in shared.constants.values()}
    gone = alone.constants.keys() - shared.constants.keys()
    assert {name for pair in alone.from_lists for name in pair} <= gone
    wanted = run_program(alone, [x.numpy()])[0]
    for run in (run_program, interpret_device):
        assert relative_error(run(shared, [x.numpy()])[0], wanted.astype(np.float64)) < 2e-6
