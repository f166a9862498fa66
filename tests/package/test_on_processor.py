"""Packages whose code for a GPU leaves layers to the processor, whole networks on PoCL against PyTorch."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import pcc
from pcc import PccError
from tests.nets_on_processor import DETECTOR_SHAPE, MIDDLE_SHAPE, detector, middle
from tests.opencl import pocl_environment

RUN = """
import json, sys, threading
import numpy as np
import pcc

package, folder, contexts, batches = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
found = [None] * contexts

def use(number):
    with pcc.load(package, threads=1 + number % 2, device="gpu", cache=folder) as model:
        said = model.device
        outputs = []
        for turn in range(3):
            for batch in batches:
                results = model(np.load(f"{folder}/x.npy")[:batch])
                outputs.append(list(results) if isinstance(results, (tuple, list)) else [results])
        found[number] = said, outputs, sorted({(call.layer, call.device) for call in model.profile()})

threads = [threading.Thread(target=use, args=(number,)) for number in range(contexts)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
for number, (_, outputs, _) in enumerate(found):
    for turn, results in enumerate(outputs):
        for port, result in enumerate(results):
            np.save(f"{folder}/{number}_{turn}_{port}.npy", np.asarray(result))
print(json.dumps([found[0][0], found[0][2]]))
"""


def run(
    package: Path,
    x: torch.Tensor,
    module: nn.Module,
    folder: Path,
    batches: Sequence[int] = (1,),
    contexts: int = 2,
    tolerance: float = 1e-5,
) -> list[list[str]]:
    """Several contexts at once, each in a thread with one or two of its own, agree with PyTorch. The calls' layers
    and where they ran."""
    environment = {**os.environ, **pocl_environment(folder / "opencl")}
    np.save(folder / "x.npy", x.numpy())
    command = [sys.executable, "-c", RUN, str(package), str(folder), str(contexts), json.dumps(list(batches))]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert ran.returncode == 0, ran.stderr[-2000:]
    device, layers = json.loads(ran.stdout)
    assert device.startswith("gpu: "), device
    with torch.no_grad():
        wanted = module(x)
    for number in range(contexts):
        for turn in range(3 * len(batches)):
            for port, right in enumerate(wanted if isinstance(wanted, tuple) else (wanted,)):
                got = np.load(folder / f"{number}_{turn}_{port}.npy")
                expected = right[: batches[turn % len(batches)]].numpy()
                assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()
    return layers


def test_asked_for_in_the_middle_and_at_the_end(tmp_path: Path) -> None:
    """Batches, threads, and a library with two forms of the model, each with a program of its own for the GPU."""
    module, x, package = middle(), torch.randn(3, *MIDDLE_SHAPE[1:]), tmp_path / "net"
    report = pcc.compile(
        module,
        (torch.randn(*MIDDLE_SHAPE),),
        package,
        target=pcc.target_named("x86_64-linux", "generic"),
        gpu="opencl",
        on_cpu=["mid", "fc"],
        max_batch=3,
    )
    (target,) = report.manifest.targets
    assert target.gpu is not None
    assert [program.cpu for program in target.gpu.programs] == ["x86-64-v4", "x86-64-v3"]
    for program in target.gpu.programs:
        left = [layer for layer in program.layers if layer.on_processor]
        assert [layer.layer for layer in left] == ["mid", "view_1", "fc"]
        assert all(layer.on_processor and layer.on_processor.asked for layer in left)
        assert [layer.weight_bytes > 0 for layer in left] == [True, False, True]
    layers = run(package, x, module, tmp_path, (3, 1, 2), contexts=4)
    assert [layer for layer, device in layers if device == "cpu"] == ["fc", "mid", "view_1"]
    assert {layer for layer, device in layers if device == "gpu"} >= {"c1", "c2"}


def test_costs_leave_boxes_to_the_processor(tmp_path: Path) -> None:
    module, x, package = detector(), torch.randn(*DETECTOR_SHAPE), tmp_path / "net"
    report = pcc.compile(module, (x,), package, gpu="opencl:adreno-6xx")
    (target,) = report.manifest.targets
    assert target.gpu is not None
    (program,) = target.gpu.programs
    on_processor = {layer.layer for layer in program.layers if layer.on_processor}
    assert {"nms", "top_k"} <= on_processor
    assert not {"c1", "c2"} & on_processor
    run(package, x, module, tmp_path)


def test_fp16_on_the_gpu_beside_fp32(tmp_path: Path) -> None:
    """The processor has no fp16 arithmetic, and its form of the model stays fp32: no layer goes to it."""
    module, x, package = middle(), torch.randn(*MIDDLE_SHAPE), tmp_path / "net"
    with pytest.raises(PccError, match="the GPU's numbers are float16 there, the processor's float32"):
        pcc.compile(module, (x,), package, gpu="opencl", dtype="fp16", on_cpu=["mid"])
    report = pcc.compile(module, (x,), package, gpu="opencl", dtype="fp16")
    (target,) = report.manifest.targets
    assert target.gpu is not None
    kernels = {call.kernel for layer in target.layers for call in layer.calls}
    assert not any("f16" in name for name in kernels)
    assert any("f16" in call.kernel for program in target.gpu.programs for call in program.calls)
    run(package, x, module, tmp_path, tolerance=2e-3)
