"""How evenly two threads share a layer: by the items of its calls, as the runtime hands them out."""

from dataclasses import replace

import pytest
import torch

from pcc.codegen.lower import lower
from pcc.codegen.machine import MACHINES
from pcc.codegen.program import Program
from pcc.frontend.torch_module import import_module
from pcc.passes.manager import PassManager
from pcc.passes.pipeline import DEFAULT_PIPELINE, parse_pipeline, split_pipeline
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
