"""Kernels under oclgrind: no access outside of a buffer, no race. Small shapes; it interprets."""

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


@pytest.mark.slow
def test_no_kernel_reads_or_writes_outside_or_races() -> None:
    pytest.importorskip("pyopencl")
    environment = {**os.environ, "OCLGRIND_DATA_RACES": "1", "PYTHONPATH": str(Path(__file__).parents[4])}
    done = subprocess.run([sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, text=True)
    found = [
        line for line in (done.stdout + done.stderr).splitlines() if re.match(r"(Invalid|Uninit|.*data race)", line)
    ]
    assert not found, "\n".join(found[:5])
    assert "all kernels ran" in done.stdout, done.stderr[-2000:]
