"""The sweep: which layers it covers, what it takes for slower, its page and its charts; layers built, timed, and not
timed again."""

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from pcc.codegen.machine import MACHINES
from pcc.deploy.counting_qemu import missing
from pcc.sparsity import fkw
from pcc.target import Target, host_target, target_named
from pcc.tune.layers import Case
from tools.bench_peers.ratios import Ratio
from tools.count_arm64.forms import TARGET
from tools.never_slower.__main__ import measure
from tools.never_slower.built import DENSE, BuiltLayer, build, load_layers
from tools.never_slower.page import sweep_section
from tools.never_slower.points import choices, zoo_cases
from tools.never_slower.result import INSTRUCTIONS, TIME, Point, Sweep, load_points, load_sweeps


def _point(kernel: int, density: float, gain: float, high: float) -> Point:
    family = "conv-dense" if gain == 1 else "conv-sparse-interleaved"
    ratio = Ratio(median=gain, low=gain, high=high, pairs=3)
    layer = f"8->8 {kernel}x{kernel}/1 @7"
    return Point(
        layer=layer,
        kernel=kernel,
        density=density,
        family=family,
        schedule="some tiles",
        modelled=gain,
        gain=ratio,
        digest="",
    )


def test_page_and_charts(tmp_path: Path, golden: Callable[[str, str], None]) -> None:
    fast = [_point(3, 0.1, 4.0, 4.1), _point(3, 0.8, 1.0, 1.0), _point(1, 0.1, 0.99, 1.0)]
    slow = [_point(1, 0.1, 2.0, 2.0), _point(1, 0.8, 0.5, 0.6), _point(3, 0.8, 0.5, 1.2)]
    for measured, points in (("time", fast), ("instructions", slow)):
        Sweep(processor="A processor", measure=measured, command="python -m tools.never_slower", points=points).save(
            tmp_path / "out"
        )
    golden(sweep_section(load_sweeps(tmp_path / "out"), tmp_path / "charts"), "sweep")
    assert sweep_section([], tmp_path) == ""
    for measured in ("time", "instructions"):
        chart = tmp_path / "charts" / f"never-slower-{measured}.svg"
        assert ElementTree.parse(chart).getroot().tag.endswith("svg")
        before = chart.read_bytes()
        sweep_section(load_sweeps(tmp_path / "out"), tmp_path / "charts")
        assert chart.read_bytes() == before


def test_layers_of_the_zoo() -> None:
    cases = zoo_cases()
    assert {
        Case(64, 224, 64),
        Case(512, 7, 512),
        Case(64, 56, 256, 1),
        Case(960, 7, 160, 1),
        Case(256, 14, 512, 3, 2),
    } < set(cases)
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


@pytest.mark.parametrize(
    ("case", "density"),
    [(Case(128, 4, 256), 0.8), (Case(64, 8, 64), 4 / 9), (Case(16, 32, 16), 0.3), (Case(256, 14, 256), 0.6)],
    ids=str,
)
def test_dense_where_sparse_was_slower(case: Case, density: float) -> None:
    """Small maps, where an AVX-512 processor took 0.86 to 0.94 of the time of what costs chose."""
    _, chosen = choices(case, density, MACHINES["intel-avx512"])
    assert chosen.family.format == "dense"
    assert chosen.family.format == "dense" or density < 1


def _sweep(measured: str) -> Sweep:
    return Sweep(processor="A processor", measure=measured, command="python -m tools.never_slower")


def _built(target: Target, folder: Path) -> list[tuple[Path, BuiltLayer]]:
    build([Case(8, 7, 8), Case(16, 7, 24, 1)], target, folder / "built", workers=1)
    return load_layers(folder / "built")


def test_measuring_goes_on_where_it_stopped(tmp_path: Path) -> None:
    target = host_target() if host_target().arch == "x86_64" else target_named("x86_64-linux")
    layers = _built(target, tmp_path)
    assert [layer.layer for _, layer in layers] == ["16->24 1x1/1 @7", "8->8 3x3/1 @7"]
    assert all(sum(variant.program != DENSE for variant in layer.variants) >= 2 for _, layer in layers)
    assert measure(_sweep(TIME), tmp_path, layers, target, until=0) == sum(
        variant.program != DENSE for variant in layers[1][1].variants
    )
    first = load_points(tmp_path, TIME, "A processor")
    assert measure(_sweep(TIME), tmp_path, layers, target, until=0) == 0
    done = load_points(tmp_path, TIME, "A processor")
    assert not load_points(tmp_path, TIME, "Another processor")
    assert [point for point in done if point in first] == first
    assert (
        len(done)
        == len(first) + sum(variant.program != DENSE for variant in layers[1][1].variants)
        == sum(len(layer.variants) for _, layer in layers)
    )
    assert all(point.gain.median > 0 for point in done)
    again = _sweep(TIME)
    assert measure(again, tmp_path, layers, target, until=0) == 0
    assert again.points == done
    layers[0][1].variants[0].digest = "changed"
    assert measure(again, tmp_path, layers, target, until=0) == 0
    assert [point.digest for point in again.points if point not in done] == ["changed"]


@pytest.mark.arm64
@pytest.mark.skipif(missing() is not None, reason=f"instructions not counted: {missing()}")
def test_counted(tmp_path: Path) -> None:
    layers, sweep = _built(TARGET, tmp_path), _sweep(INSTRUCTIONS)
    assert measure(sweep, tmp_path, layers, TARGET, until=float("inf")) == 0
    for point in sweep.points:
        assert point.gain.low == point.gain.high
        assert point.gain.median == 1 if point.family == "conv-dense" else point.gain.median > 0
    assert max(point.gain.median for point in sweep.points) > 1.5
