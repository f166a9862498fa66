"""The driver of ``--report``: a page about a package that was just compiled, timed if this computer runs it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.fx import GraphModule

from pcc.compile_report import CompileReport, TargetReport
from pcc.deploy.host import Host
from pcc.files import save_text
from pcc.ir.dump import read_dump, stage_files
from pcc.package.layer_report import total_counts
from pcc.package.manifest import TensorRecord
from pcc.package.read import open_package
from pcc.report.layer_times import layer_times
from pcc.report.page import PageContent, render
from pcc.report.pictures import weights_of
from pcc.target import Target, executes_here

WARMUP, RUNS = 2, 10
"""Of the profile."""


def write_report(path: Path, report: CompileReport, graphs: Mapping[Target, GraphModule]) -> None:
    """The page about the first target whose code this computer executes, with a profile; else about the first one.
    `PccError` where it cannot be written."""
    target = next((target for target in report.targets if executes_here(target.target)), report.targets[0])
    facts, times = _facts(report, target), []
    if executes_here(target.target):
        result = Host().bench(open_package(report.package), 1, WARMUP, RUNS, profile=True)
        target = next(each for each in report.targets if f"{each.target.name}, {each.target.cpu}" == result.target)
        facts = _facts(report, target) | {
            "latency": f"{result.median * 1e3:.3f} ms (median of {RUNS} runs on this computer, 1 thread)"
        }
        times = layer_times(result, target.layers)
    folder = report.package / "ir"
    stages = {name: read_dump(file) for name, file in stage_files(folder).items() if file.name != "program.txt"}
    content = PageContent(
        name=report.manifest.name,
        target=f"{target.target.name}, {target.target.cpu}",
        profile=target.profile,
        facts=facts,
        layers=target.layers,
        stages=stages,
        program=read_dump(folder / target.target.folder / "program.txt"),
        weights=weights_of(graphs[target.target]),
        seconds=report.seconds,
        verified=report.verified,
        times=times,
        timed_on=f"mean of {RUNS} runs on this computer, 1 thread",
    )
    save_text(path, render(content), f"the report '{path}'")


def _facts(report: CompileReport, target: TargetReport) -> dict[str, str]:
    manifest, counts = report.manifest, total_counts(target.layers)
    return {
        "inputs": _ports(manifest.inputs),
        "outputs": _ports(manifest.outputs),
        "from": str(manifest.notes.get("origin", "")),
        "passes": str(manifest.notes.get("pipeline", "")),
        "parameters": f"{counts.parameters:,}, {counts.nonzeros:,} of them not zero",
        "multiply-accumulates": f"{counts.macs / 1e6:,.1f} million, "
        f"{counts.kept_macs / 1e6:,.1f} with weights that are not zero",
        "library": f"{target.library_bytes / 1e6:.2f} MB, weights {target.level_weight_bytes / 1e6:.2f} MB",
        "memory": f"arena {target.arena_bytes / 1e6:.2f} MB (at least {target.arena_lower_bound / 1e6:.2f}), "
        f"{target.thread_bytes / 1e6:.2f} MB a thread",
    }


def _ports(ports: Sequence[TensorRecord]) -> str:
    return "; ".join(f"{port.name} {'x'.join(map(str, port.shape))} {port.dtype}" for port in ports)
