"""``pcc compile``: a trained network in, a package out."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pcc.cli.options import Shape, chosen_targets, json_option

if TYPE_CHECKING:
    from pcc.compiler import CompileReport


@click.command("compile")
@click.argument("model")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Where the package goes.")
@click.option("--target", "target_names", multiple=True, metavar="TARGET", help="What to compile for; may be repeated (pcc targets). Default: this machine.")
@click.option("--cpu", "cpus", multiple=True, metavar="CPU", help="The processor to use fully, for the targets of its architecture; may be repeated.")
@click.option("-p", "--pipeline", metavar="PIPELINE", help="The passes, in order, as in 'canonicalize,prune-pattern{patterns=8},...' (pcc passes).")
@click.option("--prune", metavar="WHAT", help="Prune first: 'pattern,connectivity' or with options, 'pattern,connectivity{rate=3.6}'.")
@click.option("--input-shape", "input_shapes", type=Shape(), multiple=True, help="Shape of the input; once for each. Zoo models know theirs.")
@click.option("--weights", metavar="WHAT", help="'imagenet' (zoo models, the default), a .pt, .pth or .safetensors file, or 'none': random numbers.")
@click.option("--dump-ir", type=click.Path(path_type=Path), metavar="DIR", help="Write the graph after each pass, the kernel program and the kernels.")
@click.option("--print-ir-after", metavar="PASS", help="Print the graph after this pass, or after all.")
@click.option("--verify-each", is_flag=True, help="Run the graph after each pass and compare it with the model.")
@click.option("--time-passes", is_flag=True, help="Say where the time went.")
@click.option("--threads", type=click.IntRange(min=1), help="Kernels to compile at once. Default: one for each processor.")
@json_option
def command(
    model: str,
    output: Path,
    target_names: tuple[str, ...],
    cpus: tuple[str, ...],
    pipeline: str | None,
    prune: str | None,
    input_shapes: tuple[tuple[int, ...], ...],
    weights: str | None,
    dump_ir: Path | None,
    print_ir_after: str | None,
    verify_each: bool,
    time_passes: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Compile MODEL: a name from the zoo, or FILE.py:factory."""
    from pcc.cli.console import progress
    from pcc.cli.source import open_source

    targets = chosen_targets(target_names, cpus)
    pipeline = chosen_pipeline(pipeline, prune)
    if print_ir_after:
        check_pass(print_ir_after, pipeline)
    with progress() as step:
        step(f"loading {model}")
        source = open_source(model, weights, input_shapes)
        step("importing PyTorch and TVM")
        from pcc.compiler import compile_model

        report = compile_model(
            source.module,
            source.example_inputs,
            out=output,
            targets=targets,
            pipeline=pipeline,
            name=source.name,
            preprocessing=source.preprocessing,
            labels=source.labels,
            dump_ir=dump_ir,
            print_ir_after=print_ir_after,
            verify_each=verify_each,
            progress=step,
            threads=threads or os.cpu_count() or 1,
        )
