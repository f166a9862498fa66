"""The part of docs/performance.md about arm64."""

from collections.abc import Iterable, Sequence
from statistics import mean

from tools.bench_peers.networks import GROUPS, NETWORKS, table_place
from tools.count_arm64.mca import CORES, Loop
from tools.count_arm64.result import CountResult, Executed
from tools.table import table

HEAVIEST = 10
"""Layers and loops in the tables."""
CLASSES = ("vfma", "vdot", "vload", "vstore", "vother", "load", "store", "int", "branch")
MEGABYTE = 1 << 20

_HEAD = """## arm64, counted

Executed instructions of one run on one thread, by class, under QEMU as a Cortex-A76, in millions: exact, and no times. Peers are the arm64 wheels of the
releases above, on the same weights; the second run counts. *Loaded* and *stored* are megabytes; *L1* and *L2 misses*, in thousands, are those of modelled
caches of 64 and 512 KiB without prefetching. Cycles of inner loops are llvm-mca's, with all data in the
first cache, of code compiled for the core: the mean over the inner loops of a kernel (one for each pattern), and the worst of them.
"""


def arm64_section(results: Sequence[CountResult]) -> str:
    """All networks in one table, then each by itself; empty where there are none."""
    if not results:
        return ""
    ordered = sorted(results, key=lambda result: table_place(result.network))
    return "\n".join([_HEAD, overview(ordered) + "\n", *(section(result) for result in ordered)])


def overview(results: Sequence[CountResult]) -> str:
    """Millions of instructions of each engine on each network, and on the layers of a group together."""
    titles = list(dict.fromkeys(engine.title for result in results for engine in result.engines))
    rows = [_overview_row(result.network, [result], titles) for result in results]
    by_name = {result.network: result for result in results}
    for name, layers in GROUPS.items():
        if set(layers) <= set(by_name) and not set(layers) <= set(NETWORKS):
            rows.append(_overview_row(f"{name}, {len(layers)} layers", [by_name[layer] for layer in layers], titles))
    return table(["network", "fewer MACs", *titles], rows)


def _overview_row(name: str, results: Sequence[CountResult], titles: Sequence[str]) -> list[str]:
    """The sums over networks, of the engines that ran them all."""
    totals = [{engine.title: engine.executed.total for engine in result.engines} for result in results]
    fewer = sum(result.dense_macs for result in results) / sum(result.kept_macs for result in results)
    sums = [
        _millions(sum(total[title] for total in totals)) if all(title in total for total in totals) else ""
        for title in titles
    ]
    return [name, f"{fewer:.1f}x", *sums]


def section(result: CountResult) -> str:
    """One network: the engines by class, pcc's heaviest layers, its inner loops."""
    lines = [
        f"### {result.network}, arm64\n",
        f"{result.summary}.\n",
        f"```\n{result.command}\n```\n",
        engines(result) + "\n",
    ]
    lines += [f"* {name} was not run: {reason}." for name, reason in result.not_run.items()] + [""] * bool(
        result.not_run
    )
    lines += [layers(result) + "\n"] if len(result.layers) > 1 else []
    lines += [loops(result.loops) + "\n"] if result.loops else []
    return "\n".join(lines)


def engines(result: CountResult) -> str:
    """The table of engines, fewest instructions first."""
    counted = sorted(result.engines, key=lambda engine: engine.executed.total)
    headers, cells = _columns([engine.executed for engine in counted])
    rows = [
        [engine.title, engine.version, *row, f"{engine.error:.0e}"] for engine, row in zip(counted, cells, strict=True)
    ]
    return table(["engine", "release", *headers, "error"], rows)


def layers(result: CountResult) -> str:
    """The table of pcc's layers that execute most."""
    heaviest = sorted(result.layers, key=lambda layer: -layer.executed.total)[:HEAVIEST]
    headers, cells = _columns([layer.executed for layer in heaviest])
    rows = [[layer.layer, layer.kernel.removeprefix("pcc_"), *row] for layer, row in zip(heaviest, cells, strict=True)]
    return table(["layer of pcc", "kernel", *headers], rows)


def loops(found: Iterable[Loop]) -> str:
    """The table of inner loops by core and kernel: of each kernel those that have most multiply-adds for an
    iteration."""
    of_kernel: dict[tuple[str, str], list[Loop]] = {}
    for loop in found:
        of_kernel.setdefault((loop.core, loop.kernel), []).append(loop)
    rows = []
    for (core, kernel), all_of_it in sorted(
        of_kernel.items(), key=lambda item: (list(CORES).index(item[0][0]), item[0][1])
    ):
        most = max(loop.fmas for loop in all_of_it)
        largest = [loop for loop in all_of_it if loop.fmas == most]
        cycles = [loop.cycles / loop.fmas for loop in largest]
        numbers = [largest[0].instructions, largest[0].fmas, largest[0].loads, len(largest)]
        rows.append(
            [core, kernel.removeprefix("pcc_"), *map(str, numbers), f"{mean(cycles):.2f}", f"{max(cycles):.2f}"]
        )
    return table(
        ["core", "inner loops of", "instructions", "FMLA", "loads", "such loops", "cycles per FMLA", "worst"], rows
    )


def _columns(executed: Sequence[Executed]) -> tuple[list[str], list[list[str]]]:
    """Headers and cells of counts: classes that occur, and memory where it was counted."""
    present = [name for name in CLASSES if any(counted.instructions.get(name) for counted in executed)]
    with_memory = any(counted.memory for counted in executed)
    headers = ["total", *present, *(["loaded", "stored", "L1 misses", "L2 misses"] if with_memory else [])]
    return headers, [_cells(counted, present, with_memory) for counted in executed]


def _cells(counted: Executed, present: Sequence[str], with_memory: bool) -> list[str]:
    cells = [_millions(counted.total), *(_millions(counted.instructions.get(name, 0)) for name in present)]
    if with_memory:
        cells += [f"{counted.memory.get(name, 0) / MEGABYTE:.1f}" for name in ("load_bytes", "store_bytes")]
        cells += [f"{counted.memory.get(name, 0) / 1e3:.0f}" for name in ("l1_misses", "l2_misses")]
    return cells


def _millions(number: int) -> str:
    return f"{number / 1e6:.0f}" if number >= 1e9 else f"{number / 1e6:.2f}" if number >= 1e6 else f"{number / 1e6:.3f}"
