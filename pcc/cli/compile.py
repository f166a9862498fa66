"""``pcc compile``: a trained network in, a package out."""

import gc
import json
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from statistics import geometric_mean
from time import perf_counter
from typing import TYPE_CHECKING

import click

from pcc.cli.command import Command
from pcc.cli.options import (
    ModelOptions,
    chosen_targets,
    folder_option,
    gpu_option,
    json_option,
    model_options,
    on_cpu_option,
    target_options,
)
from pcc.cli.shapes import chosen_shapes
from pcc.errors import PccError, suggestion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcc.compile_report import CompileReport, TargetReport
    from pcc.package.layer_report import TuningUseRecord


@click.command("compile", cls=Command)
@click.argument("model")
@folder_option("the package goes")
@target_options("What to compile for, may be repeated")
@gpu_option
@on_cpu_option
@model_options
@click.option(
    "--max-batch",
    type=click.IntRange(min=2),
    metavar="N",
    help="Run any batch from 1 to N: the first dimension of the inputs is free.",
)
@click.option(
    "--dump-ir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the graph after each pass, the kernel program and the kernels.",
)
@click.option("--print-ir-after", metavar="PASS", help="Print the graph after this pass, or after all.")
@click.option(
    "--verify-each/--no-verify",
    default=None,
    help="Run the graph after each pass and compare it with the model. Default: if nothing is pruned.",
)
@click.option(
    "--report",
    "page",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.html",
    help="Write a page about the package; with times by layer, if this computer runs it.",
)
@click.option("--time-passes", is_flag=True, help="Say where the time went.")
@click.option(
    "--threads", type=click.IntRange(min=1), help="Kernels to compile at once. Default: one for each processor."
)
@json_option
def command(
    model: str,
    output: Path,
    target_names: tuple[str, ...],
    cpus: tuple[str, ...],
    gpu: str | None,
    on_cpu: str | None,
    max_batch: int | None,
    dump_ir: Path | None,
    print_ir_after: str | None,
    verify_each: bool | None,
    page: Path | None,
    time_passes: bool,
    threads: int | None,
    as_json: bool,
    options: ModelOptions,
) -> None:
    """Compile MODEL: a name from the zoo, FILE.py:factory, or a file (.onnx, .pt2)."""
    start = perf_counter()
    gc.set_threshold(
        50_000,
        20,
        100,
        # importing PyTorch's exporter makes a million objects that stay; to look through them again and again takes a
        # second
    )
    from pcc.cli.console import progress
    from pcc.cli.source import open_source

    targets = chosen_targets(target_names, cpus, gpu, on_cpu)
    if max_batch and (
        fixed := next((each.shape for each in options.input_shapes if each.shape[0] not in (1, max_batch)), None)
    ):
        raise PccError(
            f"--input-shape {','.join(map(str, fixed))}: with --max-batch {max_batch} the first size is free, give 1 "
            "for it"
        )
    pipeline = options.pipeline_text()
    if print_ir_after:
        _check_pass(print_ir_after, pipeline)

    with progress(enabled=not print_ir_after) as step:
        step(f"loading {model}")
        source = open_source(model, options.weights, chosen_shapes(options.input_shapes))
        from pcc.compiler import compile_model

        report = compile_model(
            source.model,
            source.examples,
            out=output,
            targets=targets,
            pipeline=pipeline,
            name=source.name,
            preprocessing=source.preprocessing,
            labels=source.labels,
            dump_ir=dump_ir,
            print_ir_after=print_ir_after,
            verify_each=verify_each,
            report=page,
            progress=step,
            threads=threads or os.cpu_count() or 1,
            max_batch=max_batch,
            **options.costs,
        )
    seconds = perf_counter() - start
    for warning in report.warnings:
        click.echo(f"pcc: warning: {warning}", err=True)
    if as_json:
        click.echo(json.dumps(_as_json(report, seconds), indent=2))
    else:
        _print(report, seconds, time_passes, bool(verify_each))


def _check_pass(name: str, pipeline: str) -> None:
    """`PccError` for a pass to print after that the pipeline does not have."""
    from pcc.passes.pipeline import parse_pipeline

    names = tuple(step.name for step in parse_pipeline(pipeline))
    if name not in ("all", *names):
        raise PccError(f"--print-ir-after {name}: the pipeline has no such pass; {suggestion(name, ('all', *names))}")


def _print(report: "CompileReport", seconds: float, time_passes: bool, each_verified: bool) -> None:
    from pcc.cli.console import megabytes, print_table
    from pcc.ir.left_alone import by_reason

    click.echo(f"{report.manifest.name}: {report.package} in {seconds:.1f} s")
    for target in report.targets:
        memory = f"batches up to {report.manifest.max_batch}, " if report.manifest.max_batch else ""
        memory += f"memory {megabytes(target.arena_bytes)} (at least {megabytes(target.arena_lower_bound)})"
        memory += f" and {megabytes(target.thread_bytes)} a thread" if target.thread_bytes else ""
        memory += (
            f", {megabytes(target.prepared_bytes)} of weights prepared at the start" if target.prepared_bytes else ""
        )
        kernels = f"{target.kernels} kernels, {target.kernels_from_cache} of them from the cache"
        weights = (
            f" (weights {megabytes(target.level_weight_bytes)} of {megabytes(target.weight_bytes)})"
            if target.target.shares_library
            else ""
        )
        click.echo(
            f"  {target.target.name}, {target.target.cpu}: library {megabytes(target.library_bytes)}{weights}, "
            f"{memory}, {kernels}"
        )
        for line in _gpu_lines(target):
            click.echo(f"    {line}")
        if target.profile_file:
            click.echo(f"    kernels chosen by {target.profile_file}: {target.profile.origin}")
        for line in _tuning_lines(target):
            click.echo(f"    {line}")
        families = ", ".join(f"{count} {family}" for family, count in sorted(target.families.items()))
        click.echo(f"    layers: {families or 'none'}")
    if report.left_alone:
        click.echo("  left alone:")
        for line in by_reason(report.left_alone):
            click.echo(f"    {line}")
    if report.verified and not each_verified:
        click.echo(
            f"  verified: after each of {len(report.verified)} passes, largest relative error "
            f"{max(target.error for target in report.verified):.1e}"
        )
    if report.verified and each_verified:
        click.echo()
        rows = [
            (target.pass_name, "exact" if target.exact else "lossy", f"{target.error:.1e}")
            for target in report.verified
        ]
        print_table(["pass", "is", "relative error"], rows)
    if time_passes:
        click.echo()
        rows = [(step, f"{time:.2f}", f"{time / seconds:.0%}") for step, time in report.seconds.items()]
        rest = seconds - sum(report.seconds.values())
        print_table(
            ["step", "s", "share"],
            [
                *rows,
                ("loading and the rest", f"{rest:.2f}", f"{rest / seconds:.0%}"),
                ("total", f"{seconds:.2f}", "100%"),
            ],
        )


def _gpu_lines(target: "TargetReport") -> list[str]:
    """What the library has for GPUs."""
    from pcc.cli.console import megabytes

    if target.gpu is None:
        return []
    lines = list[str]()
    for program in target.gpu.programs:
        kernels = len({call.kernel for call in program.calls})
        lines.append(
            f"{target.gpu.interface}, {program.serves}: {len(program.calls)} calls of {kernels} kernels, memory "
            f"{megabytes(program.arena_bytes)}"
        )
        if left := [layer.layer for layer in program.layers if layer.on_processor]:
            lines.append(f"on the processor: {', '.join(left)} (pcc explain --gpu)")
        choices = [layer.choice for layer in program.layers if layer.choice]
        uses = [choice.tuning for choice in choices if choice.tuning]
        if uses:
            lines += _tuned(uses, len(choices), ", ".join(sorted({use.record["processor"] for use in uses})))
    if target.gpu.runner is None:
        lines.append("the package has no runner that uses the GPU: for Android that takes an NDK (ANDROID_NDK_HOME)")
    return lines


def _tuning_lines(target: "TargetReport") -> list[str]:
    """What came of tuning records: how many layers have their kernel from them, and why others have not."""
    if not target.records_file:
        return []
    return _tuned(target.tuning, target.families.total(), str(target.records_file))


def _tuned(uses: "Sequence[TuningUseRecord]", layers: int, records: str) -> list[str]:
    """What came of the records of some layers, of so many."""
    faster = [use.speedup for use in uses if use.speedup and use.speedup > 1]
    used = sum(use.speedup is not None for use in uses)
    gain = (
        f", {len(faster)} of them {geometric_mean(faster):.2f}x as fast as what costs choose (geometric mean)"
        if faster
        else ""
    )
    ignored = Counter(use.reason for use in uses if use.speedup is None)
    return [
        f"tuned: {used} of {layers} layers, by {records}{gain}",
        *(f"{count} layers by costs, their records are not used: {reason}" for reason, count in ignored.items()),
    ]


def _as_json(report: "CompileReport", seconds: float) -> dict[str, object]:
    targets = [
        {
            "target": target.target.name,
            "cpu": target.target.cpu,
            "isa": target.target.isa,
            "library_bytes": target.library_bytes,
            "weight_bytes": target.weight_bytes,
            "level_weight_bytes": target.level_weight_bytes,
            "arena_bytes": target.arena_bytes,
            "arena_lower_bound": target.arena_lower_bound,
            "thread_bytes": target.thread_bytes,
            "prepared_bytes": target.prepared_bytes,
            "gpu": None if target.gpu is None else target.gpu.model_dump(),
            "kernels": target.kernels,
            "kernels_from_cache": target.kernels_from_cache,
            "profile": target.profile.model_dump(),
            "profile_file": None if target.profile_file is None else str(target.profile_file),
            "records_file": None if target.records_file is None else str(target.records_file),
            "families": dict(target.families),
            "layers": [layer.model_dump() for layer in target.layers],
        }
        for target in report.targets
    ]
    return {
        "name": report.manifest.name,
        "package": str(report.package),
        "max_batch": report.manifest.max_batch,
        "seconds": seconds,
        "steps": report.seconds,
        "targets": targets,
        "verified": [asdict(target) for target in report.verified],
        "left_alone": [asdict(layer) for layer in report.left_alone],
        "warnings": report.warnings,
    }
