"""``pcc prune``: a network, data and a recipe in, a pruned checkpoint out."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pcc.cli.command import Command
from pcc.cli.options import MOST_THREADS, folder_option, json_option
from pcc.cli.shapes import InputShape, Shape, check_one_image
from pcc.errors import PccError

if TYPE_CHECKING:
    from pcc.training.prune import Report

EPILOG = (
    "Several processes, one machine or more: torchrun --nproc-per-node 2 -m pcc.cli prune MODEL ... (gloo on "
    "processors, nccl on GPUs)."
)


@click.command("prune", cls=Command, epilog=EPILOG)
@click.argument("model")
@click.option(
    "--data",
    "data_name",
    required=True,
    metavar="DATA",
    help="mnist, cifar10, a folder with train/CLASS and test/CLASS, or FILE.py:loader.",
)
@click.option(
    "--recipe",
    "recipe_name",
    required=True,
    metavar="RECIPE",
    help="A .yaml file, or a recipe that ships with pcc, by name.",
)
@folder_option("checkpoint, report and logs go")
@click.option(
    "--weights",
    metavar="WHAT",
    help="'trained' (default where there are any), a checkpoint (FILE or FILE:KEY), or 'none' to train from scratch.",
)
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    metavar="MODEL=WHAT",
    help="What stages with 'distill' learn from, in place of MODEL as it came in.",
)
@click.option(
    "--input-shape", type=Shape(), help="Shape of the input, for models that are not the zoo's and a folder of photos."
)
@click.option("--resume", is_flag=True, help="Go on after the last epoch that an interrupted run completed.")
@click.option(
    "--threads", type=click.IntRange(1, MOST_THREADS), help="Threads for each process. Default: torch's choice."
)
@json_option
def command(
    model: str,
    data_name: str,
    recipe_name: str,
    output: Path,
    weights: str | None,
    teachers: tuple[str, ...],
    input_shape: tuple[int, ...] | None,
    resume: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Train and prune MODEL: a name from the zoo, FILE.py:factory, or an .onnx or .pt2 file."""
    import torch

    from pcc.cli.console import prints_aside, progress_bar
    from pcc.training.processes import OtherFailed, processes
    from pcc.training.prune import prune
    from pcc.training.recipe import load_recipe

    if threads:
        torch.set_num_threads(threads)
    try:
        with processes() as process, progress_bar(enabled=process.first) as watch, prints_aside():
            report = prune(
                model,
                data_name,
                load_recipe(recipe_name),
                output,
                process,
                recipe_name=recipe_name,
                weights=weights,
                teachers=[_teacher(text) for text in teachers],
                input_shape=_one_input(input_shape),
                resume=resume,
                watch=watch,
            )
    except OtherFailed:
        raise click.exceptions.Exit(1) from None
    if process.first:
        click.echo(report.model_dump_json(indent=2)) if as_json else _print(report, output)


def _teacher(text: str) -> tuple[str, str]:
    model, equals, weights = text.partition("=")
    if not (model and equals and weights):
        raise PccError(f"--teacher {text}: give a model and its weights, for example resnet20=dense/model.safetensors")
    return model, weights


def _one_input(shape: tuple[int, ...] | None) -> tuple[int, int, int] | None:
    if shape is None:
        return None
    if len(shape) != 4:
        raise PccError(f"--input-shape {','.join(map(str, shape))}: give N,C,H,W, for example 1,3,224,224")
    check_one_image([InputShape(None, shape)], "the recipe says the batch")
    return shape[1], shape[2], shape[3]


def _print(report: "Report", output: Path) -> None:
    from pcc.cli.console import megabytes, print_table
    from pcc.training.folder import CHECKPOINT

    click.echo(
        f"{report.model}: {output / CHECKPOINT} after {report.epochs} epochs in {report.seconds:.0f} s, seed "
        f"{report.seed}, in {report.precision} on {report.device}"
    )
    click.echo(f"  accuracy {report.accuracy:.2%}, before {report.dense_accuracy:.2%}")
    click.echo(
        f"  {megabytes(report.checkpoint_bytes)} on disk, every weight as fp32; data, index and rates below are "
        "counted from the structures"
    )
    click.echo()
    rows = []
    for name, structure, cost in (
        *((layer.name, layer.structure, layer) for layer in report.layers),
        ("total", "", report.total),
    ):
        rates = [f"{rate:.2f}" for rate in (cost.weight_rate, cost.data_rate, cost.data_and_index_rate, cost.mac_rate)]
        rows.append(
            (
                name,
                structure,
                f"{cost.weights:,}",
                f"{cost.kept:,}",
                megabytes(cost.data_bytes),
                megabytes(cost.index_bytes),
                *rates,
            )
        )
    print_table(
        [
            "layer",
            "structure",
            "weights",
            "kept",
            "data",
            "index",
            "rate by weights",
            "by data",
            "by data and index",
            "by MACs",
        ],
        rows,
    )
    click.echo()
    click.echo(report.compile)
