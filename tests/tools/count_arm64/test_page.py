"""The page's part about arm64, from counts that nobody made."""

from collections.abc import Callable
from pathlib import Path

from tools.count_arm64.mca import Loop
from tools.count_arm64.page import arm64_section
from tools.count_arm64.result import CountResult, EngineCount, Executed, LayerCount, load_counts


def _executed(scale: int, memory: bool) -> Executed:
    bytes_and_misses = {
        "load_bytes": scale << 20,
        "store_bytes": scale << 19,
        "l1_misses": 1000 * scale,
        "l2_misses": 10 * scale,
    }
    return Executed(
        instructions={"vfma": 2_000_000 * scale, "vload": 400_000 * scale, "vdot": 0},
        memory=bytes_and_misses if memory else {},
    )


def _result(network: str, memory: bool) -> CountResult:
    loops = [
        Loop(kernel="pcc_conv_dense", label=label, instructions=10, fmas=fmas, loads=2, core=core, cycles=cycles)
        for core, cycles in (("neoverse-n1", 4.0), ("cortex-a55", 16.0), ("neoverse-v1", 3.0))
        for label, fmas in (("a", 8), ("b", 4), ("c", 8))
    ]
    return CountResult(
        network=network,
        summary="A network",
        command=f"python -m tools.count_arm64 {network}",
        dense_macs=8_000_000,
        kept_macs=2_000_000,
        engines=[
            EngineCount(engine="ncnn", title="ncnn", version="1.0", error=1e-5, executed=_executed(1000, memory)),
            EngineCount(engine="pcc", title="pcc", version="this", error=1e-6, executed=_executed(1, memory)),
        ],
        not_run={"MNN": "no network"},
        layers=[
            LayerCount(layer=name, kernel="pcc_conv_dense", executed=_executed(scale, memory))
            for name, scale in (("small", 1), ("large", 2))
        ],
        loops=loops,
    )


def test_page(tmp_path: Path, golden: Callable[[str, str], None]) -> None:
    for result in (_result("resnet50", True), _result("conv:8,8,3,7", False)):
        result.save(tmp_path)
    golden(arm64_section(load_counts(tmp_path)), "arm64")
    assert arm64_section([]) == ""
