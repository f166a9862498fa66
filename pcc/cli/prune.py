"""``pcc prune``: a network, data and a recipe in, a pruned checkpoint out."""

from pathlib import Path
from time import perf_counter

import click

from pcc.cli.options import json_option


@click.command("prune")
@click.argument("model")
@click.option("--data", "data_name", required=True, metavar="DATA", help="mnist, cifar10, a folder with train/CLASS and test/CLASS, or FILE.py:loader.")
@click.option("--recipe", "recipe_name", required=True, metavar="RECIPE", help="A .yaml file, or a recipe that ships with pcc, by name.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Where checkpoint and logs go.")
@click.option("--weights", metavar="WHAT", help="A .pt, .pth or .safetensors file, 'imagenet', or 'none' to train from scratch (default where there is none).")
@click.option("--resume", is_flag=True, help="Go on after the last epoch that an interrupted run completed.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads for each process. Default: torch's choice.")
@json_option
def command(model: str, data_name: str, recipe_name: str, output: Path, weights: str | None, resume: bool, threads: int | None, as_json: bool) -> None:
    """Train and prune MODEL: a name from the zoo, or FILE.py:factory. Starts several processes with torchrun."""
    start = perf_counter()
    from pcc.training.recipe import load_recipe

    recipe = load_recipe(recipe_name)
    from pcc.cli.console import training_progress
    from pcc.training.prune import prune

    with training_progress() as watch:
        report = prune(model, data_name, recipe, output, weights=weights, resume=resume, threads=threads, watch=watch)
    if report is None:  # another process reports
        return
    if as_json:
        click.echo(report.model_dump_json(indent=2))
    else:
        click.echo(f"{report.model}: {output / 'model.safetensors'} in {perf_counter() - start:.0f} s")
        click.echo(f"  accuracy {report.accuracy:.2%} (as it came in {report.dense_accuracy:.2%})")
