"""``pcc bench``: how long a package takes, and where."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pcc.cli.command import Command
from pcc.cli.options import chosen_device, device_options, json_option, say_why_no_gpu, threads_option
from pcc.errors import PccError

if TYPE_CHECKING:
    from pcc.deploy import BenchResult
    from pcc.package.manifest import Manifest, TargetRecord
    from pcc.report.layer_times import LayerTime


@click.command("bench", cls=Command)
@click.argument("package", type=click.Path(path_type=Path))
@threads_option
@click.option(
    "--warmup", type=click.IntRange(min=0), default=3, show_default=True, help="Runs before the ones that count."
)
@click.option("--runs", type=click.IntRange(min=1), default=20, show_default=True, help="Runs that count.")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="Images at once, for a package with a maximum batch. Default: the maximum.",
)
@click.option(
    "--profile", is_flag=True, help="Also say, for each layer, its kernels, work, bytes and share of the time."
)
@device_options
@json_option
def command(
    package: Path,
    threads: int,
    warmup: int,
    runs: int,
    batch: int | None,
    profile: bool,
    device: str,
    cpu: str | None,
    use: str,
    as_json: bool,
) -> None:
    """Time the network in PACKAGE on made-up input."""
    from pcc.cli.console import megabytes, print_table, progress
    from pcc.package.read import open_package
    from pcc.report.layer_times import layer_times

    opened = open_package(package)
    chosen = chosen_device(device, cpu, use)
    record, name = chosen.record(opened), chosen.named(opened)
    batch = _checked_batch(opened.manifest, batch)
    with progress() as step:
        step(f"{warmup + runs} runs on {name}")
        result = chosen.bench(opened, threads, warmup, runs, profile, batch)
    say_why_no_gpu(result.device)
    layers = layer_times(result, chosen.layers(opened, result)) if profile else []
    library_bytes = opened.file(record.library).stat().st_size
    if as_json:
        report = result.model_dump(exclude={"calls"}) | {
            "device": name,
            "computed_by": result.device,
            "library_bytes": library_bytes,
            "batch": batch,
        }
        click.echo(
            json.dumps(report | ({"layers": [_as_json(layer) for layer in layers]} if profile else {}), indent=2)
        )
        return
    milliseconds = {name: f"{getattr(result, name) * 1e3:.3f}" for name in ("median", "p10", "p90", "min")}
    images = f"batch {batch} of up to {opened.manifest.max_batch}, " if batch else ""
    on_gpu = result.device.startswith("gpu")
    computed = result.device if on_gpu else f"{threads} thread{'s' * (threads > 1)}"
    click.echo(f"{result.model}, {result.target}, on {name}, {images}{computed}, {runs} runs")
    click.echo(
        f"median {milliseconds['median']} ms, p10 {milliseconds['p10']}, p90 {milliseconds['p90']}, min "
        f"{milliseconds['min']}"
    )
    click.echo(f"library {megabytes(library_bytes)}, weights {megabytes(result.weight_bytes)}{_memory(result, record)}")
    if chosen.name.startswith("qemu"):
        click.echo("These are times of an emulator: they say nothing about a real processor.")
    if profile:
        click.echo()
        on = ["on"] if on_gpu else []
        headers = ["layer", *on, "kernels", "dense MMACs", "kept MMACs", "weight kB", "ms", "share %"]
        print_table(headers, [_cells(layer, on_gpu=on_gpu) for layer in layers])


def _memory(result: "BenchResult", record: "TargetRecord") -> str:
    """What a context needs besides the weights, on the GPU where that computes."""
    from pcc.cli.console import megabytes

    if record.gpu and result.device.startswith("gpu"):
        return f", arena of the GPU {megabytes(record.gpu.program(result.device, result.target).arena_bytes)}"
    prepared = f" and {megabytes(result.prepared_bytes)} prepared from them" if result.prepared_bytes else ""
    return f"{prepared}, arena {megabytes(result.arena_bytes)} and {megabytes(result.thread_bytes)} a thread"


def _checked_batch(manifest: "Manifest", batch: int | None) -> int | None:
    """The batch to run: the largest if None; None for a package that has one of its own."""
    if batch is not None and manifest.max_batch is None:
        raise PccError(
            f"--batch {batch}: {manifest.name} runs the batch it was compiled for; pcc compile --max-batch N makes a "
            "package for any up to N"
        )
    if batch is not None:
        manifest.batches.of([(batch,)])
    return batch or manifest.max_batch


def _as_json(time: "LayerTime") -> dict[str, Any]:
    layer = time.report
    sums = {
        "kernels": layer.kernels,
        "macs": layer.macs,
        "dense_macs": layer.dense_macs,
        "weight_bytes": layer.weight_bytes,
    }
    return layer.model_dump(exclude={"calls"}) | sums | {"seconds": time.seconds, "share": time.share}


def _cells(time: "LayerTime", *, on_gpu: bool) -> list[str]:
    layer = time.report
    return [
        layer.layer,
        *(["cpu" if layer.on_processor else "gpu"] if on_gpu else []),
        " + ".join(layer.kernels),
        f"{layer.dense_macs / 1e6:.2f}",
        f"{layer.macs / 1e6:.2f}",
        f"{layer.weight_bytes / 1e3:.1f}",
        f"{time.seconds * 1e3:.3f}",
        f"{time.share * 100:.1f}",
    ]
