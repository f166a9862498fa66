"""``pcc bench``: how long a package takes, and where."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pcc.cli.options import chosen_device, device_options, json_option, threads_option

if TYPE_CHECKING:
    from pcc.deploy import BenchResult
    from pcc.package.manifest import CallRecord


@dataclass
class LayerTime:
    """A layer's kernel calls added up; ``share`` is of the time of all layers."""

    layer: str
    kernels: list[str]
    dense_macs: int = 0
    macs: int = 0
    weight_bytes: int = 0
    seconds: float = 0.0
    share: float = 0.0


@click.command("bench")
@click.argument("package", type=click.Path(path_type=Path))
@threads_option
@click.option("--warmup", type=click.IntRange(min=0), default=3, show_default=True, help="Runs before the ones that count.")
@click.option("--runs", type=click.IntRange(min=1), default=20, show_default=True, help="Runs that count.")
@click.option("--profile", is_flag=True, help="Also say, for each layer, its kernels, work, bytes and share of the time.")
@device_options
@json_option
def command(package: Path, threads: int, warmup: int, runs: int, profile: bool, device: str, cpu: str | None, as_json: bool) -> None:
    """Time the network in PACKAGE on made-up input."""
    from pcc.cli.console import megabytes, print_table, progress
    from pcc.package.read import open_package

    opened = open_package(package)
    chosen = chosen_device(device, cpu)
    record = opened.target(chosen.target)
    with progress() as step:
        step(f"{warmup + runs} runs on {chosen.name}")
        result = chosen.bench(opened, threads, warmup, runs, profile)
    layers = layer_times(result, record.calls) if profile else []
    library_bytes = opened.file(record.library).stat().st_size
    if as_json:
        report = result.model_dump(exclude={"calls"}) | {"device": chosen.name, "library_bytes": library_bytes}
        click.echo(json.dumps(report | ({"layers": [asdict(layer) for layer in layers]} if profile else {}), indent=2))
        return
    milliseconds = {name: f"{getattr(result, name) * 1e3:.3f}" for name in ("median", "p10", "p90", "min")}
    click.echo(f"{result.model}, {result.target}, on {chosen.name}, {threads} thread{'s' * (threads > 1)}, {runs} runs")
    click.echo(f"median {milliseconds['median']} ms, p10 {milliseconds['p10']}, p90 {milliseconds['p90']}, min {milliseconds['min']}")
    memory = f"arena {megabytes(result.arena_bytes)} and {megabytes(result.thread_bytes)} a thread"
    click.echo(f"library {megabytes(library_bytes)}, weights {megabytes(result.weight_bytes)}, {memory}")
    if chosen.name.startswith("qemu"):
        click.echo("These are times of an emulator: they say nothing about a real processor.")
    if profile:
        click.echo()
        headers = ["layer", "kernels", "dense MMACs", "kept MMACs", "weight kB", "ms", "share %"]
        print_table(headers, [_cells(layer) for layer in layers])


def layer_times(result: "BenchResult", records: "Sequence[CallRecord]") -> list[LayerTime]:
    """The profile of a run by layers, in order of execution."""
    layers: dict[str, LayerTime] = {}
    total = sum(call.seconds for call in result.calls) or 1.0
    for call, record in zip(result.calls, records, strict=True):
        layer = layers.setdefault(call.layer, LayerTime(call.layer, []))
        if call.kernel not in layer.kernels:
            layer.kernels.append(call.kernel)
        layer.dense_macs += call.dense_macs
        layer.macs += call.macs
        layer.weight_bytes += record.weight_bytes
        layer.seconds += call.seconds
        layer.share = layer.seconds / total
    return list(layers.values())


def _cells(layer: LayerTime) -> list[str]:
    return [
        layer.layer,
        " + ".join(layer.kernels),
        f"{layer.dense_macs / 1e6:.2f}",
        f"{layer.macs / 1e6:.2f}",
        f"{layer.weight_bytes / 1e3:.1f}",
        f"{layer.seconds * 1e3:.3f}",
        f"{layer.share * 100:.1f}",
    ]
