"""Kernels under oclgrind: no access outside of a buffer, no race. Small shapes; it interprets.

What is read before it is written, PoCL shows (`tests.codegen.opencl.test_lower.check`): oclgrind takes a variable that
a branch in a loop sets for one that is not initialised.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = """
from pcc.codegen.layers import ConvGeometry
from pcc.codegen.opencl.kernels.conv_gather import gather_call
from pcc.codegen.opencl.kernels.tile import Tile
from pcc.dtype import FLOAT16
from tests.codegen.opencl.kernels import test_conv_direct as direct, test_winograd as winograd
from tests.codegen.opencl.kernels.support import Case
from tests.opencl import OCLGRIND

SAME = direct.SAME
for tile in (Tile(4, 2, 2), Tile(4, 1, 1), Tile(1, 2, 4), Tile(2, 2, 2)):
    direct.run_case(Case(3, 4, 5, 9, SAME, residual=True), tile, direct.PATTERNS, 0.6, platform=OCLGRIND)
direct.run_case(Case(3, 4, 5, 6, SAME, dtype=FLOAT16), Tile(4, 2, 2), direct.PATTERNS, 0.6, platform=OCLGRIND)
for geometry in (
    ConvGeometry((3, 3), (2, 2), (0, 0, 1, 1)),
    ConvGeometry((7, 7), (2, 2), (3, 3, 3, 3)),
    ConvGeometry((3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
    ConvGeometry((1, 1)),
):
    direct.run_case(Case(2, 4, 7, 9, geometry), Tile(4, 1, 2), None, 0.7, platform=OCLGRIND)
direct.run_case(Case(2, 3, 5, 7, SAME, groups=1), Tile(1, 2, 2), None, 1.0, platform=OCLGRIND)
direct.run_case(Case(3, 4, 5, 7, SAME), Tile(4, 1, 2), direct.PATTERNS, 0.6, gather_call, OCLGRIND)
for outputs, tiles in ((2, 4), (4, 4), (4, 1)):
    winograd.run_case(Case(3, 5, 5, 7, SAME, residual=True), outputs, 8, 2, tiles, OCLGRIND)
print("all kernels ran")
"""


_OPERATORS = """
from functools import partial

from torch import nn

from pcc.dtype import FLOAT32
from tests.codegen.opencl.kernels.test_linear_sparse import CASES, SHARES, check as check_sparse
from tests.codegen.opencl.test_lower import CONVOLUTIONS, FP16_PASSES, OPERATORS, Function, check, nms, random
from tests.opencl import OCLGRIND
from tests.opencl_program import GRAPH_PASSES, run_program

run = [partial(run_program, platform=OCLGRIND)]
for function, shapes in [*OPERATORS.values(), (nms, [(2, 4, 17), (2, 3, 17)])]:
    check(Function(function), [random(*shape) for shape in shapes], 5e-6, runs=run)
for passes, tolerance in ((GRAPH_PASSES, 5e-6), (FP16_PASSES, 3e-3)):
    for case in CONVOLUTIONS[:7]:
        sizes = {name: value for name, value in case.items() if name not in ("inputs", "outputs", "size")}
        layer = nn.Sequential(nn.Conv2d(case["inputs"], case["outputs"], **sizes), nn.ReLU6())
        check(layer, [random(1, case["inputs"], *case["size"])], tolerance, passes, run)
    check(nn.Sequential(nn.Linear(13, 17), nn.GELU()), [random(3, 13)], tolerance, passes, run)
for share in SHARES:
    check_sparse(share, CASES[2], FLOAT32, 5e-6, run)
print("all kernels ran")
"""


_WEIGHTS = """
import torch
from torch import nn

from pcc.dtype import FLOAT16
from tests.codegen.opencl.kernels.test_weights import check_unlisted
from tests.codegen.opencl.test_lower import FP16_PASSES, check
from tests.codegen.test_packing import Net
from tests.opencl import OCLGRIND
from tests.opencl_program import GRAPH_PASSES, run_program

for share in (1, 2, 4):
    for size in (1, 2, 3, 4):
        for zeros in (0.0, 0.3):
            check_unlisted(share, size, channels=5, platform=OCLGRIND, zeros=zeros)
check_unlisted(4, 4, FLOAT16, 5, OCLGRIND)
run = [lambda program, inputs: run_program(program, inputs, OCLGRIND)]
for passes, tolerance in ((GRAPH_PASSES, 5e-6), (FP16_PASSES, 3e-3)):
    check(Net(), [torch.randn(1, 3, 6, 6)], tolerance, passes, run)
print("all kernels ran")
"""
"""What makes weights when a library is loaded."""


@pytest.mark.slow
@pytest.mark.parametrize("script", [_SCRIPT, _OPERATORS, _WEIGHTS], ids=["tiled convolutions", "operators", "weights"])
def test_no_kernel_reads_or_writes_outside_or_races(script: str) -> None:
    pytest.importorskip("pyopencl")
    environment = {**os.environ, "OCLGRIND_DATA_RACES": "1", "PYTHONPATH": str(Path(__file__).parents[4])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    found = [line for line in (done.stdout + done.stderr).splitlines() if re.match(r"(Invalid|.*data race)", line)]
    assert not found, "\n".join(found[:5])
    assert "all kernels ran" in done.stdout, done.stderr[-2000:]
