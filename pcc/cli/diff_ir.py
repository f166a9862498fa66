"""``pcc diff-ir``: two networks, or one at two stages, layer by layer."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from pcc.cli.command import Command
from pcc.cli.options import json_option, model_only, weights_option
from pcc.cli.shapes import InputShape, input_shapes_option
from pcc.errors import PccError

DIFFERENT = 1
"""The exit status where they differ, as diff has it."""


@click.command("diff-ir", cls=Command)
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option(
    "--after",
    metavar="STAGE",
    help="The stage to compare: a pass, 'import' or 'program'. Default: the last pass on the graph.",
)
@input_shapes_option
@weights_option
@json_option
def command(
    first: str, second: str, after: str | None, input_shapes: tuple[InputShape, ...], weights: str | None, as_json: bool
) -> int:
    """Compare the graphs, or kernel programs, of A and B, layer by layer. The exit status is 1 where they differ.

    Each is a model, as pcc compile takes it, a package, a folder of --dump-ir, or a text that pcc dump wrote. The
    options for models are for both.
    """
    from pcc.cli.dump import dump_folder
    from pcc.report.ir_diff import diff_ir

    sides = (first, second)
    if all(side.endswith(".txt") or dump_folder(side) for side in sides):
        model_only(first, {"--weights": weights, "--input-shape": input_shapes})
    if all(side.endswith(".txt") for side in sides) and after:
        raise PccError(f"--after {after}: {first} and {second} are texts of one stage")
    found = diff_ir(*(_text(side, after, input_shapes, weights) for side in sides))
    if as_json:
        click.echo(json.dumps({"layers": [asdict(layer) for layer in found.layers], "equal": found.equal}, indent=2))
        return DIFFERENT if found.layers else 0
    for layer in found.layers:
        click.echo(f"{layer.layer}{'' if layer.where == 'both' else f': only in the {layer.where}'}")
        for sign, lines in (("-", layer.removed), ("+", layer.added)):
            for line in lines:
                click.echo(f"  {sign} {line}")
    click.echo(found.summary)
    return DIFFERENT if found.layers else 0


def _text(side: str, after: str | None, input_shapes: tuple[InputShape, ...], weights: str | None) -> str:
    from pcc.cli.dump import dump_folder, planned
    from pcc.ir.dump import read_dump, stage_text
    from pcc.report.ir_diff import is_dump

    folder = dump_folder(side)
    if folder is not None or side.endswith(".txt"):
        text = stage_text(folder, after) if folder is not None else read_dump(Path(side))
        if not is_dump(text):
            raise PccError(f"{side} is no text of pcc dump: give one, a model, a package or a folder of --dump-ir")
        return text
    from pcc.passes.pipeline import DEFAULT_PIPELINE
    from pcc.planner import print_stage
    from pcc.target import host_target

    return print_stage(planned(side, after, DEFAULT_PIPELINE, input_shapes, weights, target=host_target()))
