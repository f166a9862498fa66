"""``pcc tune``: the best schedules of a network's layers, or what a processor's costs are."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pcc.cli.command import Command
from pcc.cli.options import ModelOptions, chosen_targets, json_option, model_options, target_options, written
from pcc.cli.shapes import chosen_shapes
from pcc.config import saved_profile
from pcc.errors import PccError
from pcc.target import GENERIC, Target, executes_here, target_named

if TYPE_CHECKING:
    from pcc.codegen.processor import Processor
    from pcc.tune.calibrate import Calibration
    from pcc.tune.tuner import Judge, TunedLayer

TRIALS = 32


@click.command("tune", cls=Command)
@click.argument("model", required=False)
@click.option(
    "--calibrate", is_flag=True, help="Find what a processor's costs are, by which kernels are chosen; takes no model."
)
@click.option(
    "--trials",
    type=click.IntRange(min=2),
    metavar="N",
    help=f"Schedules to measure for each layer, earlier calls included. Default: {TRIALS}.",
)
@click.option(
    "--device",
    type=click.Choice(["host", "qemu"]),
    help="Time on this computer, or count arm64 instructions. Default: by the target.",
)
@target_options("What is compiled for")
@click.option(
    "--gpu",
    metavar="GPU",
    help="Time on the GPU that is there, for a family: opencl, or opencl:PROFILE (pcc targets).",
)
@model_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where a profile goes. Default: where pcc compile looks for it.",
)
@json_option
@click.pass_context
def command(
    context: click.Context,
    model: str | None,
    calibrate: bool,
    trials: int | None,
    device: str | None,
    target_names: tuple[str, ...],
    cpus: tuple[str, ...],
    gpu: str | None,
    output: Path | None,
    as_json: bool,
    options: ModelOptions,
) -> None:
    """Find the best schedules of MODEL's layers, or fit pcc's cost model to a processor.

    With a MODEL, as pcc compile takes it, schedules of each layer are measured beside the one that the costs choose:
    times, if this computer executes the target's code, else instructions that arm64 code executes under QEMU. pcc
    compile then uses those that were faster. With --calibrate, layers of known networks are run by several schedules of
    every kernel family, and costs are fitted to what they took; pcc compile uses the profile for that processor, and
    says so, until the file is removed.

    With --gpu, schedules of a MODEL's layers for a family of GPUs are timed on this computer's GPU, or, where it has
    none, on another device of that interface (OpenCL on the processor). What is found belongs to the device and its
    driver's version.

    Leave the computer alone meanwhile. Ctrl-C loses nothing: the next call goes on.
    """
    if calibrate == (model is not None):
        raise click.UsageError("say what to tune: a MODEL, or --calibrate and no model")
    target = _chosen_target(target_names, cpus, device, gpu)
    if calibrate and gpu:
        raise click.UsageError("--gpu goes with a MODEL: costs of GPUs are not fitted")
    if calibrate:
        if used := written({"--trials": trials} | options.by_name):
            raise click.UsageError(f"{used[0]} goes with a MODEL, not with --calibrate")
        _calibrate(target, output, as_json)
    elif output:
        raise click.UsageError("-o is for the profile of --calibrate; --tuning-records names the file for a MODEL")
    else:
        _tune(str(model), target, trials or TRIALS, as_json, options)


def _chosen_target(names: tuple[str, ...], cpus: tuple[str, ...], device: str | None, gpu: str | None) -> Target:
    """The target of a command line; `PccError` where the device cannot judge it."""
    if device == "qemu" and gpu:
        raise PccError("--device qemu counts instructions of processors: leave it out to time --gpu on this computer")
    targets = (
        [target_named("aarch64-linux")]
        if device == "qemu" and not names and not cpus
        else chosen_targets(names, cpus, gpu)
    )
    if len(targets) > 1:
        raise PccError("tune for one target at a time")
    (target,) = targets
    if target.cpu == GENERIC:
        raise PccError(f"tune for one processor: --cpu {GENERIC} is several")
    if device == "host" and not executes_here(target):
        raise PccError(f"--device host: this computer cannot execute code for {target.name}, {target.cpu}")
    if device == "qemu" and (target.arch != "aarch64" or executes_here(target)):
        raise PccError(
            f"--device qemu counts instructions of arm64 code that this computer cannot execute, not of {target.name}, "
            f"{target.cpu}"
        )
    if target.gpu and not executes_here(target):
        raise PccError(
            f"a GPU is timed on this computer, which cannot execute code for {target.name}, {target.cpu}: leave out "
            f"{'--device' if device else '--target and --cpu'}"
        )
    if target.gpu and len(target.gpu.profiles) > 1:
        raise PccError(f"tune for one family of GPUs at a time, not for {', '.join(target.gpu.profiles)}")
    return target


def _tune(model: str, target: Target, trials: int, as_json: bool, options: ModelOptions) -> None:
    from pcc.cli.console import progress, progress_bar
    from pcc.cli.source import is_package, open_source

    if is_package(model):
        raise PccError(f"{model} is a package, whose kernels are compiled: tune the model that it was made from")
    text = options.pipeline_text()
    with progress() as step:
        step(f"loading {model}")
        from pcc.tune.tuner import records_file, tune

        path = records_file(options.tuning_records)
        judge, machine = _judge(target, options.machine_profile)
        source = open_source(model, options.weights, chosen_shapes(options.input_shapes))
        from pcc.planner import open_graph

        graph = open_graph(source.model, source.examples, text, target, step)
    with progress_bar() as show:
        tuned = tune(graph, judge, machine, path, trials, show)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "records": str(path),
                    "target": target.name,
                    "cpu": target.cpu,
                    "processor": judge.processor,
                    "layers": [_layer_json(layer) for layer in tuned],
                },
                indent=2,
            )
        )
    else:
        _print_tuned(tuned, judge, path)


def _judge(target: Target, machine_profile: str | None) -> "tuple[Judge, Processor]":
    """Who measures, and what costs are of."""
    workers = os.cpu_count() or 1
    if target.gpu is None:
        from pcc.tune.tuner import ProcessorJudge, machine_for

        machine = machine_for(target, machine_profile)
        return ProcessorJudge(target, machine, workers), machine
    if machine_profile:
        raise PccError(f"--machine-profile {machine_profile} is a processor's: leave it out for a GPU")
    from pcc.codegen.processor import processor_named
    from pcc.deploy import Host
    from pcc.tune.gpu import GpuJudge

    return GpuJudge(target, Host(), workers), processor_named(target.gpu.profiles[0])


def _print_tuned(tuned: "list[TunedLayer]", judge: "Judge", path: Path) -> None:
    from pcc.cli.console import print_table
    from pcc.tune.tuner import mean_speedup

    rows = []
    for layer in tuned:
        faster, schedules = f"{layer.record.speedup:.2f}", layer.record.schedules
        rows.append(
            [
                layer.names[0],
                len(layer.names),
                schedules,
                layer.costs_choice,
                layer.best if layer.best != layer.costs_choice else "the same",
                faster,
            ]
        )
    print_table(["layer", "times", "schedules", "costs choose", "best", "x as fast"], rows)
    click.echo()
    for schedule, reason in judge.refused.items():
        click.echo(f"Not run: {schedule}: {reason}")
    unit = "times" if judge.is_timed else "executed instructions"
    worst = max(tuned, key=lambda layer: layer.record.speedup, default=None)
    if worst is None:
        click.echo("The model has no convolutions or linear layers.")
        return
    click.echo(
        f"{judge.where}: tuned layers are {mean_speedup(tuned):.3f}x as fast as what the costs choose, "
        f"by {unit} (geometric mean),"
    )
    click.echo(
        f"at most {worst.record.speedup:.2f}x ({worst.names[0]}). Saved in {path}: pcc compile uses it, and says so."
    )


def _layer_json(layer: "TunedLayer") -> dict[str, Any]:
    from dataclasses import asdict

    record = asdict(layer.record)
    schedules = {"costs_schedule": record.pop("costs_choice"), "best_schedule": record.pop("best")}
    return {"layers": layer.names, "costs_choice": layer.costs_choice, "best": layer.best, **schedules, **record}


def _calibrate(target: Target, output: Path | None, as_json: bool) -> None:
    from pcc.cli.console import progress
    from pcc.tune.calibrate import calibrate

    path = output or saved_profile(target)
    if path.is_dir():
        raise PccError(f"{path} is a folder: -o names a file")
    with progress() as step:
        found = calibrate(target, step, os.cpu_count() or 1)
    if found.is_better:
        found.save(path)
    found.measurements.forget()
    if as_json:
        click.echo(json.dumps(_calibration_json(found, path), indent=2))
    else:
        _print_calibration(found, path, output is None)


def _print_calibration(found: "Calibration", path: Path, is_default: bool) -> None:
    from pcc.cli.console import print_table

    name = found.profile.name
    click.echo(f"{name}: {found.profile.origin}")
    if found.measurements.noise:
        click.echo(f"The median round of a schedule is {found.measurements.noise:.0%} above its least.")
    click.echo()
    rows = [(kind, f"{found.built_in.costs[kind]:g}", f"{fitted:g}") for kind, fitted in found.profile.costs.items()]
    print_table(["cost of", "built-in", "fitted"], rows)
    click.echo()
    rankings = (("built-in", found.ranking_built_in), ("fitted", found.ranking))
    rows = [
        (
            name,
            f"{ranking.loss - 1:.1%}",
            f"{ranking.worst_loss - 1:.0%}",
            ranking.worst_layer,
            f"{ranking.correlation:.2f}",
        )
        for name, ranking in rankings
    ]
    print_table(["costs", "slower than the best", "at worst", "in layer", "rank correlation"], rows)
    click.echo()
    if not found.is_better:
        click.echo("Not saved: the built-in costs choose better.")
    elif is_default:
        click.echo(
            f"Saved as {path}: pcc compile uses it for {name} from now on, and says so (--machine-profile built-in "
            "does without)."
        )
    else:
        click.echo(f"Saved as {path}: pcc compile --machine-profile {path} uses it.")


def _calibration_json(found: "Calibration", path: Path) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "profile": found.profile.model_dump(),
        "built_in": found.built_in.model_dump(),
        "saved": str(path) if found.is_better else None,
        "ranking": asdict(found.ranking),
        "ranking_built_in": asdict(found.ranking_built_in),
        "noise": found.measurements.noise,
        "schedules": found.taken,
    }
