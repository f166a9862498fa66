"""``pcc dump``: a stage of a network as text, or as a file for Netron."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pcc.cli.command import Command
from pcc.cli.options import ModelOptions, chosen_targets, model_only, model_options, target_options
from pcc.cli.shapes import InputShape, chosen_shapes
from pcc.errors import PccError
from pcc.files import check_apart, save_file

if TYPE_CHECKING:
    from pcc.planner import Stage

SUFFIXES = (".txt", ".onnx")


@click.command("dump", cls=Command)
@click.argument("model", metavar="MODEL|PACKAGE|DIR")
@click.option(
    "--after",
    metavar="STAGE",
    help="A pass, 'import' or 'program' (the kernel program; of a package also 'opencl:generic'). Default: the last "
    "pass on the graph.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="FILE.txt, or FILE.onnx, a view for Netron. Default: print it.",
)
@target_options("What kernels are chosen for")
@model_options
def command(
    model: str,
    after: str | None,
    output: Path | None,
    target_names: tuple[str, ...],
    cpus: tuple[str, ...],
    options: ModelOptions,
) -> None:
    """Print a stage of a network: the graph after a pass, or the kernel program.

    Of a MODEL, as pcc compile takes it, the passes run and no kernel is compiled. A PACKAGE and a folder of --dump-ir
    have the stages as they were when they were made. A view for Netron has the graph's operators with what is known
    about each as metadata, and no weights.
    """
    from pcc.ir.dump import stage_text

    if output and output.suffix.lower() not in SUFFIXES:
        raise PccError(f"'{output}': give a file that ends in {' or '.join(SUFFIXES)}")
    if output:
        check_apart([output], Path(model))
    as_view = output is not None and output.suffix.lower() == ".onnx"
    if (folder := dump_folder(model)) is not None:
        model_only(model, options.by_name | {"--target": target_names, "--cpu": cpus})
        if as_view:
            raise PccError(f"{model} holds stages as text: a view is made of the model")
        result: Stage | str = stage_text(folder, after)
    else:
        (target, *others) = chosen_targets(target_names, cpus)
        if others:
            raise PccError("dump for one target at a time")
        text = options.pipeline_text()
        result = planned(
            model, after, text, options.input_shapes, options.weights, target=target.levels[0], **options.costs
        )
    if output is None:
        click.echo(_text(result), nl=False)
        return

    save_file(output, lambda path: _save(result, Path(model).stem, path, as_view), f"'{output}'")


def dump_folder(model: str) -> Path | None:
    """The folder with the stages of a package, or of ``--dump-ir``; None for a model. `PccError` for a package whose
    texts are damaged."""
    from pcc.cli.source import package_at

    if package := package_at(model):
        for name in package.manifest.files:
            if name.startswith("ir/"):
                package.file(name)
        return package.path / "ir"
    return Path(model) if Path(model).is_dir() else None


def planned(
    model: str,
    after: str | None,
    pipeline: str,
    input_shapes: tuple[InputShape, ...],
    weights: str | None,
    **options: Any,
) -> "Stage":
    """A model after a stage of a pipeline; the last of the graph if None."""
    from pcc.cli.console import progress
    from pcc.cli.source import open_source

    with progress() as step:
        step(f"loading {model}")
        source = open_source(model, weights, chosen_shapes(input_shapes))
        from pcc.planner import PROGRAM, plan_stage, stage_names

        stage = after or [name for name in stage_names(pipeline) if name != PROGRAM][-1]
        return plan_stage(
            source.model, source.examples, name=source.name, pipeline=pipeline, stage=stage, progress=step, **options
        )


def _text(result: "Stage | str") -> str:
    from pcc.planner import print_stage

    return result if isinstance(result, str) else print_stage(result)


def _save(result: "Stage | str", name: str, path: Path, as_view: bool) -> None:
    from torch.fx import GraphModule

    if not as_view:
        path.write_text(_text(result), encoding="utf-8")
    elif isinstance(result, GraphModule):
        from pcc.frontend.onnx.view import save_view

        save_view(result, name, path)
    else:
        raise PccError("the kernel program is no graph: a view is made of the stages before it")
