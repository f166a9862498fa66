"""The sweep: which layers it covers, what it takes for slower, its page and its charts."""

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from pcc.codegen.machine import MACHINES
from pcc.sparsity import fkw
from pcc.tune.layers import Case
from tools.never_slower.page import sweep_section
from tools.never_slower.points import choices, zoo_cases
from tools.never_slower.result import Point, Sweep, load_sweeps


def _point(kernel: int, density: float, gain: float, high: float) -> Point:
    family = "conv-dense" if gain == 1 else "conv-sparse-interleaved"
    return Point(layer=f"8->8 {kernel}x{kernel}/1 @7", kernel=kernel, density=density, family=family, gain=gain, low=gain, high=high)


def test_page_and_charts(tmp_path: Path, golden: Callable[[str, str], None]) -> None:
    fast = [_point(3, 0.1, 4.0, 4.1), _point(3, 0.8, 1.0, 1.0), _point(1, 0.1, 0.99, 1.0)]
    slow = [_point(1, 0.1, 2.0, 2.0), _point(1, 0.8, 0.5, 0.6), _point(3, 0.8, 0.5, 1.2)]
    for measure, points in (("time", fast), ("instructions", slow)):
        Sweep(processor="A processor", measure=measure, command="python -m tools.never_slower", points=points).save(tmp_path / "out")
    golden(sweep_section(load_sweeps(tmp_path / "out"), tmp_path / "charts"), "sweep")
    assert sweep_section([], tmp_path) == ""
    for measure in ("time", "instructions"):
        chart = tmp_path / "charts" / f"never-slower-{measure}.svg"
        assert ElementTree.parse(chart).getroot().tag.endswith("svg")
        before = chart.read_bytes()
        sweep_section(load_sweeps(tmp_path / "out"), tmp_path / "charts")
        assert chart.read_bytes() == before


def test_layers_of_the_zoo() -> None:
    cases = zoo_cases()
    assert {Case(64, 224, 64), Case(512, 7, 512), Case(64, 56, 256, 1), Case(960, 7, 160, 1), Case(256, 14, 512, 3, 2)} < set(cases)
    assert all(case.groups == 1 and case.inputs > 3 for case in cases)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("density", [0.05, 0.3, 0.8, 1.0])
def test_both_kernels_compute_the_same_weight(kernel: int, density: float) -> None:
    dense, chosen = choices(Case(64, 14, 64, kernel), density, MACHINES["intel-avx512"])
    assert dense.family.format == "dense"
    unpacked = fkw.unpack(chosen.weight) if isinstance(chosen.weight, fkw.FKW) else chosen.weight
    np.testing.assert_array_equal(unpacked, dense.weight)
    assert np.count_nonzero(unpacked) / unpacked.size == pytest.approx(density, rel=0.02)
    assert chosen.family.format == "fkw" or density > 0.2
