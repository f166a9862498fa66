"""``pcc inspect``: what a network consists of."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from pcc.cli.command import Command
from pcc.cli.options import json_option, model_only, weights_option
from pcc.cli.shapes import InputShape, chosen_shapes, input_shapes_option

if TYPE_CHECKING:
    from pcc.package.layer_report import LayerReport


@click.command("inspect", cls=Command)
@click.argument("model", metavar="MODEL|PACKAGE")
@input_shapes_option
@weights_option
@json_option
def command(model: str, input_shapes: tuple[InputShape, ...], weights: str | None, as_json: bool) -> None:
    """List the layers of a network: shapes, parameters, multiply-accumulates, structure, bytes.

    Of a MODEL, as pcc compile takes it, after the passes that are the same for every processor. Of a PACKAGE, what its
    manifest says.
    """
    from pcc.cli.source import package_at

    if package := package_at(model):
        model_only(model, {"--input-shape": input_shapes, "--weights": weights})
        manifest = package.manifest
        head: dict[str, Any] = {"name": manifest.name, "pipeline": manifest.notes.get("pipeline")}
        head["inputs"] = {port.name: {"shape": port.shape, "dtype": port.dtype} for port in manifest.inputs}
        head["outputs"] = {port.name: {"shape": port.shape, "dtype": port.dtype} for port in manifest.outputs}
        head["libraries"] = {
            record.library: manifest.files[record.library].size
            for record in manifest.targets
            if record.library in manifest.files
        }
        head["gpus"] = {
            record.library: {program.serves: len(program.calls) for program in record.gpu.programs}
            for record in manifest.targets
            if record.gpu
        }
        layers = manifest.targets[0].layers if manifest.targets else ()
    else:
        head, layers = _of_model(model, input_shapes, weights)
    if as_json:
        rows = [layer.model_dump() | {"kept": layer.kept, "weight_bytes": _weight_bytes(layer)} for layer in layers]
        click.echo(json.dumps(head | {"layers": rows, "totals": _totals(layers)}, indent=2))
    else:
        _print(head, layers)


def _of_model(
    model: str, input_shapes: tuple[InputShape, ...], weights: str | None
) -> "tuple[dict[str, Any], Sequence[LayerReport]]":
    from pcc.cli.console import progress
    from pcc.cli.source import open_source
    from pcc.target import host_target

    with progress() as step:
        step(f"loading {model}")
        source = open_source(model, weights, chosen_shapes(input_shapes))
        from pcc.dtype import short_name
        from pcc.ir.graph import outputs, shape_of
        from pcc.package.layer_report import graph_reports
        from pcc.passes.pipeline import DEFAULT_PIPELINE
        from pcc.planner import open_graph

        graph = open_graph(source.model, source.examples, DEFAULT_PIPELINE, host_target(), step)
    ports = {
        "inputs": {node.name: node for node in graph.graph.find_nodes(op="placeholder")},
        "outputs": outputs(graph),
    }
    described = {
        kind: {
            name: {"shape": shape_of(node), "dtype": short_name(node.meta["val"].dtype)} for name, node in of.items()
        }
        for kind, of in ports.items()
    }
    return {"name": source.name, **described}, graph_reports(graph)


def _weight_bytes(layer: "LayerReport") -> int:
    """Of its constants: as they ship where that is known, else as the graph has them."""
    return layer.weight_bytes if layer.calls or layer.counts is None else layer.counts.weight_bytes


def _totals(layers: "Sequence[LayerReport]") -> dict[str, int]:
    """Sums over the layers, weights as they ship where that is known."""
    from pcc.package.layer_report import total_counts

    return total_counts(layers).model_dump(exclude={"input_bytes"}) | {"weight_bytes": sum(map(_weight_bytes, layers))}


def _print(head: dict[str, Any], layers: "Sequence[LayerReport]") -> None:
    from pcc.cli.console import megabytes, print_table

    ports = [
        "; ".join(f"{name} {'x'.join(map(str, port['shape']))} {port['dtype']}" for name, port in head[kind].items())
        for kind in ("inputs", "outputs")
    ]
    click.echo(f"{head['name']}: inputs {ports[0]}; outputs {ports[1]}")
    for library, size in head.get("libraries", {}).items():
        programs = head["gpus"].get(library, {}).items()
        code = "".join(f"; code for GPUs, {profile}: {calls} calls" for profile, calls in programs)
        click.echo(f"{library}: {megabytes(size)}{code}")
    click.echo()
    headers = [
        "layer",
        "operator",
        "output",
        "parameters",
        "kept %",
        "MMACs",
        "kept MMACs",
        "structure",
        "weight kB",
        "output kB",
    ]
    print_table(headers, [_cells(layer) for layer in layers])
    sums = _totals(layers)
    click.echo(f"\n{len(layers)} layers, {sums['parameters']:,} parameters, {sums['nonzeros']:,} of them not zero")
    click.echo(
        f"{sums['macs'] / 1e6:,.1f} million multiply-accumulates, {sums['kept_macs'] / 1e6:,.1f} with weights that are "
        "not zero"
    )
    click.echo(f"weights {megabytes(sums['weight_bytes'])}, outputs of layers {megabytes(sums['output_bytes'])}")


def _cells(layer: "LayerReport") -> list[str]:
    counts, kept = layer.counts, layer.kept
    has_macs = counts is not None and counts.macs > 0
    return [
        layer.layer,
        layer.operator or "-",
        "x".join(map(str, layer.shape)) or "-",
        str(counts.parameters) if counts and counts.parameters else "-",
        "-" if kept is None else f"{100 * kept:.1f}",
        f"{counts.macs / 1e6:.2f}" if counts and has_macs else "-",
        f"{counts.kept_macs / 1e6:.2f}" if counts and has_macs else "-",
        layer.structure.text if layer.structure else "-",
        f"{_weight_bytes(layer) / 1e3:.1f}",
        f"{counts.output_bytes / 1e3:.1f}" if counts else "-",
    ]
