"""``pcc export``: a network in, the same network as a file for other tools out, smaller by what passes dropped."""

import json
from pathlib import Path

import click

from pcc.cli.command import Command
from pcc.cli.options import json_option, prune_option, weights_option
from pcc.cli.shapes import InputShape, chosen_shapes, input_shapes_option
from pcc.files import check_apart, named_files


@click.command("export", cls=Command)
@click.argument("model")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="FILE.onnx, FILE.pt2 or FILE.safetensors.",
)
@click.option(
    "-p",
    "--pipeline",
    metavar="PIPELINE",
    help="The passes on the graph, in order (pcc passes). Default: up to drop-filters.",
)
@prune_option
@input_shapes_option
@weights_option
@json_option
def command(
    model: str,
    output: Path,
    pipeline: str | None,
    prune: str | None,
    input_shapes: tuple[InputShape, ...],
    weights: str | None,
    as_json: bool,
) -> None:
    """Export MODEL, a name from the zoo, FILE.py:factory, or a file (.onnx, .pt2), after passes such as
    drop-filters."""
    from pcc.cli.console import megabytes, progress
    from pcc.cli.source import open_source
    from pcc.exporter import DEFAULT_PIPELINE, export_model
    from pcc.passes.pipeline import insert_pruning

    check_apart([output], *named_files(model, weights))
    text = DEFAULT_PIPELINE if pipeline is None else pipeline
    text = text if prune is None else insert_pruning(text, prune)
    with progress() as step:
        step(f"loading {model}")
        source = open_source(model, weights, chosen_shapes(input_shapes))
        step(f"exporting {model}")
        exported, warnings = export_model(source.model, source.examples, out=output, pipeline=text)
    for warning in warnings:
        click.echo(f"pcc: warning: {warning}", err=True)
    size = output.stat().st_size
    inputs = {taken.name: taken.shape for taken in exported.inputs}
    if as_json:
        click.echo(
            json.dumps(
                {
                    "file": str(output),
                    "bytes": size,
                    "origin": exported.origin,
                    "pipeline": text,
                    "inputs": inputs,
                    "outputs": exported.outputs,
                },
                indent=2,
            )
        )
    else:
        shapes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in inputs.items())
        outputs = ", ".join(exported.outputs)
        click.echo(f"{output}: {megabytes(size)}, from {exported.origin}; inputs {shapes}; outputs {outputs}")
