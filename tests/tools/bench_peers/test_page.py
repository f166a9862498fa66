"""The page, from results that nobody measured."""

from collections.abc import Callable
from pathlib import Path

from tools.bench_peers.machine import Machine
from tools.bench_peers.networks import LayerMacs
from tools.bench_peers.page import page
from tools.bench_peers.ratios import paired_ratio
from tools.bench_peers.result import Duel, Result, Timing, load_results


def _timing(engine: str, title: str, milliseconds: float, error: float = 1e-6, dense: bool = True) -> Timing:
    rounds = [
        [milliseconds * 1e-3 * factor for factor in factors]
        for factors in ((1.0, 1.1, 1.2), (1.3, 1.1, 1.0), (1.0, 1.0, 1.5))
    ]
    return Timing(engine=engine, title=title, version="1.0", dense=dense, error=error, rounds=rounds)


def _result(network: str, disturbance: float) -> Result:
    return Result(
        network=network,
        summary="A network",
        command=f"python -m tools.bench_peers {network}",
        machine=Machine(processor="A processor", features=["AVX2"], cores=2, pinned=1, siblings=[0]),
        peak=1e9,
        macs={
            "a": LayerMacs(kind="3x3", dense=4_000_000, kept=1_000_000),
            "b": LayerMacs(kind="1x1", dense=4_000_000, kept=3_000_000),
        },
        timings=[
            _timing("pcc", "pcc", 10.0, dense=False),
            _timing("onnxruntime", "ONNX Runtime", 30.0),
            _timing("ncnn", "ncnn", 20.0, float("inf")),
            _timing("deepsparse", "DeepSparse", 12.0, dense=False),
        ],
        not_run={"litert": "could not be installed: no network"},
        duels=[Duel(engine="onnxruntime", ratio=paired_ratio([3.0, 3.3], [1.0, 1.0]))],
        layers={"pcc": {"a": 0.004, "b": 0.006}, "onnxruntime": {"a/Relu": 0.020, "ReorderInput": 0.001}},
        disturbance=disturbance,
    )


def test_page(tmp_path: Path, golden: Callable[[str, str], None]) -> None:
    for result in (_result("resnet50", 0.0), _result("conv:8,8,3,7", 0.5), _result("vgg16-features", 0.0)):
        result.save(tmp_path)
    golden(page(load_results(tmp_path)), "page")


def test_best_peers() -> None:
    result = _result("resnet50", 0.0)
    best = [result.best(dense) for dense in (True, False)]
    assert [peer and peer.engine for peer in best] == ["onnxruntime", "deepsparse"]  # ncnn is faster, and wrong
