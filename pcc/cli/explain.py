"""``pcc explain``: which kernel each layer gets and why, and what pruning it would bring."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from pcc.cli.command import Command
from pcc.cli.options import (
    ModelOptions,
    chosen_gpu,
    chosen_targets,
    json_option,
    model_only,
    model_options,
    on_cpu_option,
    target_options,
)
from pcc.cli.shapes import chosen_shapes
from pcc.errors import PccError
from pcc.target import GENERIC

if TYPE_CHECKING:
    from pcc.explain import Explanation
    from pcc.package.layer_report import ChoiceRecord, LayerReport
    from pcc.report.pruning_prices import LayerPrices


@click.command("explain", cls=Command)
@click.argument("model", metavar="MODEL|PACKAGE")
@target_options("What to explain for")
@click.option("--gpu", metavar="GPU", help="Explain for a GPU: opencl, or opencl:PROFILE (pcc targets).")
@on_cpu_option
@model_options
@json_option
def command(
    model: str,
    target_names: tuple[str, ...],
    cpus: tuple[str, ...],
    gpu: str | None,
    on_cpu: str | None,
    as_json: bool,
    options: ModelOptions,
) -> None:
    """Say for each layer which kernel it gets, what that costs, what every alternative would cost, and whether pruning
    would pay.

    Nothing is compiled. Of a MODEL, as pcc compile takes it, each layer is also priced at several rates of the
    structure that --prune names (pattern and connectivity without it): from which rate on a sparse kernel is faster
    than the dense one, on this processor. Of a PACKAGE, what its manifest says.
    """
    from pcc.cli.console import progress
    from pcc.cli.source import open_source, package_at

    if package := package_at(model):
        from pcc.explain import explain_package

        model_only(model, {**options.by_name, "--on-cpu": on_cpu})
        found, name = explain_package(package, target_names, cpus, chosen_gpu(gpu)), package.manifest.name
    else:
        targets = chosen_targets(target_names, cpus, gpu, on_cpu)
        if len(targets) > 1 or targets[0].cpu == GENERIC:
            raise PccError(
                "explain for one processor at a time, not for "
                f"{'several targets' if len(targets) > 1 else f'--cpu {GENERIC}'}"
            )
        text = options.pipeline_text()
        with progress() as step:
            step(f"loading {model}")
            source = open_source(model, options.weights, chosen_shapes(options.input_shapes))
            from pcc.explain import explain_model

            found = explain_model(
                source.model, source.examples, target=targets[0], pipeline=text, progress=step, **options.costs
            )
            name = source.name
    for warning in found.warnings:
        click.echo(f"pcc: warning: {warning}", err=True)
    if as_json:
        click.echo(json.dumps(_as_json(name, found), indent=2))
    else:
        _print(name, found)


def _print(name: str, found: "Explanation") -> None:
    from pcc.cli.console import print_table
    from pcc.ir.left_alone import by_reason
    from pcc.package.layer_report import all_left_alone
    from pcc.report.gain import total_gain

    costs = (
        f"costs by {found.profile.get('name')}, {found.profile.get('origin')}"
        if found.profile
        else "costs of the pcc that made it"
    )
    click.echo(f"{name} for {found.target}, {found.cpu}; {costs}\n")
    chosen = [(layer, layer.choice) for layer in found.layers if layer.choice]
    headers = [
        "layer",
        "output",
        "structure",
        "kept %",
        "kernel",
        "cost / 1000",
        "x dense",
        *(["pays from"] if found.prices else []),
    ]
    print_table(headers, [_cells(layer, choice, found.prices.get(layer.node)) for layer, choice in chosen])
    total = total_gain(found.layers)
    if total is not None:
        cost = sum(choice.cost for _, choice in chosen)
        click.echo(
            f"\nAll of them: {cost / 1e3:,.1f}, {total:.2f} times as fast as the cheapest dense kernels. Other layers "
            "have no costs."
        )
    if found.prices:
        from pcc.report.pruning_prices import RATES

        rates = ", ".join(f"{rate:g}" for rate in RATES)
        click.echo(
            f"\n'pays from': the rate of {found.pruning} from which on a sparse kernel costs less, and the weights "
            f"kept; priced at {rates}."
        )
        click.echo("\nTimes as fast as the dense kernel, at these rates:")
        _print_grouped([(layer.layer, _rates(found.prices.get(layer.node))) for layer, _ in chosen])
    click.echo("\nSchedules, and what other families would cost, in times the chosen one:")
    _print_grouped([(layer.layer, _alternatives(choice)) for layer, choice in chosen])
    if measured := _measured([choice for _, choice in chosen], of_gpu=found.is_of_gpu):
        click.echo("\n" + "\n".join(measured))
    if found.is_of_gpu:
        _print_on_processor(found.layers)
    if alone := all_left_alone(found.layers):
        click.echo("\nLeft alone:")
        for line in by_reason(alone):
            click.echo(f"  {line}")


def _print_on_processor(layers: "Sequence[LayerReport]") -> None:
    """What the GPU's program leaves to the processor, and why."""
    left = [(layer, layer.on_processor) for layer in layers if layer.on_processor]
    if not left:
        click.echo("\nAll layers are computed on the GPU.")
        return
    click.echo("\nOn the processor; milliseconds by costs and what docs/gpu.md assumes, of one thread:")
    for _, stretch in groupby(left, key=lambda pair: pair[1].stretch):
        members = list(stretch)
        place = members[0][1]
        gpu, processor, crossing = (f"{1e3 * each:.3f}" for each in (place.gpu, place.processor, place.crossing))
        why = ", asked for" if place.asked else ""
        names = ", ".join(dict.fromkeys(layer.layer for layer, _ in members))
        click.echo(f"  {names}: GPU {gpu}, processor {processor}, wait and copies {crossing}{why}")


def _measured(choices: "list[ChoiceRecord]", *, of_gpu: bool) -> list[str]:
    """Which choices were measured, and where; of GPUs, of which costs say little, that none was, too."""
    uses = [choice.tuning for choice in choices if choice.tuning]
    used = [use for use in uses if use.speedup is not None]
    lines = [f"A record is not used: {reason}." for reason in dict.fromkeys(u.reason for u in uses if u not in used)]
    if used:
        processors = ", ".join(sorted({use.record["processor"] for use in used}))
        return [
            f"Measured (pcc tune) on {processors}: {len(used)} of {len(choices)} layers; others by costs.",
            *lines,
        ]
    return [*(["Estimated by costs: nothing was measured (pcc tune --gpu)."] if of_gpu else []), *lines]


def _print_grouped(lines: list[tuple[str, str]]) -> None:
    """A line for all layers of which the same is said."""
    layers: dict[str, list[str]] = {}
    for layer, text in lines:
        layers.setdefault(text, []).append(layer)
    for text, names in layers.items():
        click.echo(f"  {', '.join(names)}: {text}")


def _cells(layer: "LayerReport", choice: "ChoiceRecord", prices: "LayerPrices | None") -> list[str]:
    from pcc.report.gain import gain

    times, kept = gain(choice), layer.kept
    cells = [
        "x".join(map(str, layer.shape)),
        layer.structure.text if layer.structure else "dense",
        "-" if kept is None else f"{100 * kept:.1f}",
    ]
    cells += [choice.family, f"{choice.cost / 1e3:.1f}", "-" if times is None else f"{times:.2f}"]
    return [layer.layer, *cells, *([_break_even(prices)] if prices else [])]


def _break_even(prices: "LayerPrices") -> str:
    if prices.reason:
        return "no rate"
    found = prices.break_even
    if found is None:
        return f"not up to {prices.prices[-1].rate:g}"
    return f"{found.rate:.3g}{'' if found.cost == prices.dense else ' or less'} ({100 * found.kept:.0f} %)"


def _rates(prices: "LayerPrices | None") -> str:
    if prices is None:
        return "not priced"
    return prices.reason or ", ".join(f"{price.rate:g}: {prices.dense / price.cost:.2f}" for price in prices.prices)


def _alternatives(choice: "ChoiceRecord") -> str:
    others = [f"{other.family} {other.cost / choice.cost:.2f}" for other in choice.rejected if other.cost is not None]
    reasons: dict[str, list[str]] = {}
    for other in choice.rejected:
        if other.cost is None:
            reasons.setdefault(other.reason, []).append(other.family)
    cannot = [f"not {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    tuned = (
        []
        if choice.tuning is None or choice.tuning.speedup is None
        else [f"tuned, {choice.tuning.speedup:.2f} times as fast as {choice.tuning.reason}"]
    )
    return "; ".join(
        [f"{choice.family}, {choice.schedule.text}", *tuned, *([", ".join(others)] if others else []), *cannot]
    )


def _as_json(name: str, found: "Explanation") -> dict[str, Any]:
    from pcc.report.gain import gain, total_gain

    layers = []
    for layer in found.layers:
        prices = found.prices.get(layer.node)
        pruned = (
            None if prices is None else asdict(prices) | {"break_even": prices.break_even and asdict(prices.break_even)}
        )
        layers.append(
            layer.model_dump(exclude={"calls"})
            | {"kept": layer.kept, "gain": gain(layer.choice) if layer.choice else None, "pruned": pruned}
        )
    return {
        "name": name,
        "target": found.target,
        "cpu": found.cpu,
        "profile": found.profile,
        "gain": total_gain(found.layers),
        "pruning": found.pruning,
        "layers": layers,
        "warnings": list(found.warnings),
    }
