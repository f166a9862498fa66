"""How evenly two threads share a layer: by the items of its calls, as the runtime hands them out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pcc.codegen.family import cheapest, family_named
from pcc.codegen.layers import Linear
from pcc.codegen.lower import lower
from pcc.codegen.machine import MACHINES
from pcc.codegen.program import Program, ProgramBuilder
from pcc.frontend.torch_module import import_module
from pcc.passes.manager import PassManager
from pcc.passes.pipeline import DEFAULT_PIPELINE, parse_pipeline, split_pipeline
from pcc.sparsity.csr import pack
from tools.bench_peers.networks import network_named


def items_of_busiest(work: int, threads: int = 2) -> int:
    """Items of the thread that gets most, when all take as long: ``take`` in runtime/context.c."""
    done, left = [0] * threads, work
    while left:
        count = max(1, left // (2 * threads))
        done[done.index(min(done))] += count
        left -= count
    return max(done)


def uneven(program: Program) -> dict[str, float]:
    """Layer -> how much longer than half of its multiply-adds the busier of two threads computes."""
    busiest: dict[str, float] = {}
    whole: dict[str, int] = {}
    for call in program.calls:
        busiest[call.layer] = busiest.get(call.layer, 0) + call.macs * items_of_busiest(call.work) / call.work
        whole[call.layer] = whole.get(call.layer, 0) + call.macs
    return {layer: 2 * busiest[layer] / macs - 1 for layer, macs in whole.items() if macs}


@pytest.mark.parametrize("machine", ["intel-avx512", "avx2", "cortex-a76"])
def test_two_threads_share_sparse_linear_layers(machine: str) -> None:
    """By every family that computes them; a layer of ten outputs has an item or three, and cannot be shared."""
    b = ProgramBuilder("net", MACHINES[machine].isa)
    for outputs in (1000, 4096):
        kept = pack(np.where(np.arange(outputs * 64).reshape(outputs, 64) % 3, np.float32(0), np.float32(1)))
        for family in ("linear-sparse-gather", "linear-sparse-expand"):
            b.layer = f"{family} {outputs}"
            assert not isinstance(kept, str)
            layer = Linear(b.layer, b.tensor("x", (1, 64)), b.tensor("y", (1, outputs)), kept, None)
            if not isinstance(found := cheapest(family_named(family), layer, MACHINES[machine]), str):
                family_named(family).emit(layer, found[0].schedule, b)
    assert {layer: round(share, 3) for layer, share in uneven(b.build()).items() if share > 0.05} == {}


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["intel-avx512", "avx2", "cortex-a76"])
@pytest.mark.parametrize("name", ["vgg16-features-7.8x", "resnet50-4.4x", "mobilenet_v2-90"])
def test_two_threads_share_every_layer(name: str, machine: str) -> None:
    network = network_named(name)
    graph = import_module(network.module(), (torch.zeros(network.input_shape),))
    steps = split_pipeline(parse_pipeline(DEFAULT_PIPELINE)).graph
    chosen = [replace(step, processor=machine) if hasattr(step, "processor") else step for step in steps]
    program = lower(PassManager(chosen)(graph).graph_module, "net", MACHINES[machine].isa)
    assert {layer: round(share, 3) for layer, share in uneven(program).items() if share > 0.05} == {}
