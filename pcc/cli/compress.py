"""``pcc compress``: a trained network, photos and a wish in; a smaller or faster package out."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pcc.cli.command import Command
from pcc.cli.numbers import Number, Part
from pcc.cli.options import MOST_THREADS, chosen_targets, folder_option, json_option, weights_option
from pcc.cli.shapes import InputShape, check_one_image, chosen_shapes, input_shapes_option
from pcc.errors import PccError

if TYPE_CHECKING:
    from pcc.compression.network import Subject
    from pcc.compression.report import CompressReport


@click.command("compress", cls=Command)
@click.argument("model")
@click.option(
    "--images",
    required=True,
    metavar="FOLDER",
    help="Photos to fit on: a folder, or a list of them (FILE.txt). No labels are used.",
)
@click.option("--faster", type=Number(), metavar="TIMES", help="As fast as that many dense networks, on the target.")
@click.option("--macs", type=Part(), help="The share of multiply-accumulates that is left, as in 0.5 or 50%.")
@click.option("--size", type=Part(), help="The share of the weights' bytes that is left.")
@click.option("--keep", type=Part(), help="As fast as it can be while it names the same class on that share of photos.")
@folder_option("package, checkpoint, recipe and report go")
@click.option(
    "--photos",
    "most",
    type=click.IntRange(min=32),
    default=256,
    show_default=True,
    help="At most so many are fitted on; a fifth of all, up to 200, are held out to measure.",
)
@click.option(
    "--minutes",
    type=Number(above=0),
    help="Then learn the dense network's outputs on the photos for so long.",
)
@click.option("--target", metavar="NAME", help="What it shall be fast on. Default: this machine.")
@click.option("--cpu", metavar="CPU", help="The target's processor.")
@input_shapes_option
@weights_option
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@click.option("--threads", type=click.IntRange(1, MOST_THREADS), help="Threads to compute on. Default: torch's choice.")
@json_option
def command(
    model: str,
    images: str,
    faster: float | None,
    macs: float | None,
    size: float | None,
    keep: float | None,
    output: Path,
    most: int,
    minutes: float | None,
    target: str | None,
    cpu: str | None,
    input_shapes: tuple[InputShape, ...],
    weights: str | None,
    resume: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Prune MODEL until a wish comes true, without labels: what each layer loses and gains in every structure is
    measured, a solver chooses, and what is left is fitted to what the network gives for the photos.

    One of --faster, --macs, --size and --keep is the wish. Times are measured where this computer executes the target's
    code; else they are the cost model's.
    """
    import torch

    from pcc.cli.console import prints_aside, progress_bar
    from pcc.compression.compress import compress_network
    from pcc.compression.photos import open_photos, split
    from pcc.compression.wish import chosen_wish

    wish = chosen_wish(faster, macs, size, keep)
    targets = chosen_targets([target] if target else [], [cpu] if cpu else [])
    if threads:
        torch.set_num_threads(threads)
    with progress_bar() as watch, prints_aside():
        watch(f"loading {model}", 0.0)
        subject = _subject(model, weights, input_shapes)
        samples = open_photos(images, subject.input_shape, subject.preprocessing)
        watch("reading photos", 0.0)
        photos = split(samples, most)
        report = compress_network(subject, photos, wish, output, targets[0], minutes, resume, watch)
    click.echo(report.model_dump_json(indent=2)) if as_json else _print(report, output)


def _subject(model: str, weights: str | None, input_shapes: tuple[InputShape, ...]) -> "Subject":
    from pcc.cli.source import open_source
    from pcc.compression.network import Subject, one_image, open_subject

    check_one_image(input_shapes, "pcc compress chooses the batch itself")
    source = open_source(model, weights, chosen_shapes(input_shapes))
    examples = source.examples.values() if isinstance(source.examples, dict) else source.examples or ()
    shapes = [tuple(example.shape) for example in examples]
    if not all(example.is_floating_point() for example in examples):
        raise PccError(f"{model} takes whole numbers: pcc compress gives it photos as fp32, scaled and normalised")
    if isinstance(source.model, Path):
        return open_subject(model, one_image(model, shapes) if shapes else None, name=source.name)
    return Subject(
        source.name,
        model,
        source.model,
        one_image(model, shapes),
        source.preprocessing,
        source.labels,
        weights=weights,
    )


def _print(report: "CompressReport", output: Path) -> None:
    from pcc.cli.console import print_table
    from pcc.compression.network import PACKAGE

    click.echo(f"{report.model}, {report.wish}: {output / PACKAGE} for {report.target}, {report.cpu}")
    click.echo(
        f"  fitted on {report.photos} photos without labels in {sum(report.stages.values()):.0f} s: "
        + ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in report.stages.items())
    )
    if report.measured is None:
        click.echo(
            f"  {report.predicted:.2f} times as fast by the cost model, convolutions and linear layers alone: this "
            "computer does not execute the target's code"
        )
    else:
        click.echo(
            f"  {report.measured:.2f} times as fast as dense, measured on one thread ({_ms(report.dense_seconds)} to "
            f"{_ms(report.seconds)} ms); predicted {report.predicted:.2f}"
        )
    if report.rank_correlation is not None:
        click.echo(f"  rank correlation of the layers' predicted and measured speed-ups {report.rank_correlation:.2f}")
    click.echo(f"  {report.macs:.1%} of multiply-accumulates, {report.size:.1%} of the weights' bytes")
    agreement = report.comparison.agreement
    if agreement is not None:
        click.echo(
            f"  names the dense network's class on {agreement.share:.1%} of {report.held_out} photos held out "
            f"({agreement.low:.1%} to {agreement.high:.1%})"
        )
    for found in report.comparison.outputs:
        click.echo(f"  {found.name}: rms error {found.rms:.1e} of the dense network's")
    if report.note:
        click.echo(f"  {report.note}")
    click.echo()
    headers = ["layer", "structure", "MACs %", "x by cost", "x measured", "error", "fitted", "loss", "why"]
    rows = [
        (
            row.layer,
            row.structure,
            f"{100 * row.kept:.1f}",
            f"{row.faster:.2f}",
            "-" if row.measured is None else f"{row.measured:.2f}",
            f"{row.predicted_error:.4f}",
            "-" if row.fitted_error is None else f"{row.fitted_error:.4f}",
            f"{row.loss:.1e}",
            row.why,
        )
        for row in report.layers
    ]
    print_table(headers, rows)
    click.echo()
    click.echo(report.compile)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.3f}"
