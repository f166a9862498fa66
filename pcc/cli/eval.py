"""``pcc eval``: how good a network is on data, alone or beside another."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pcc.cli.command import Command
from pcc.cli.options import chosen_device, device_options, json_option, model_only, threads_option, weights_option
from pcc.cli.shapes import InputShape, check_one_image, chosen_shapes, input_shapes_option
from pcc.errors import PccError

if TYPE_CHECKING:
    from pcc.deploy import Device
    from pcc.evaluate.evaluate import Accuracy, Evaluation
    from pcc.evaluate.network import Network
    from pcc.evaluate.samples import Samples
    from pcc.evaluate.statistics import Share


@click.command("eval", cls=Command)
@click.argument("model", metavar="MODEL|PACKAGE")
@click.option(
    "--data",
    required=True,
    metavar="DATA",
    help="mnist, cifar10, FILE.py:loader, or photos: a folder, class folders, or a list of lines 'NAME CLASS'.",
)
@click.option(
    "--against", metavar="MODEL[=WHAT]|PACKAGE", help="Another network on the same samples, with weights as --weights."
)
@input_shapes_option
@weights_option
@device_options
@threads_option
@json_option
def command(
    model: str,
    data: str,
    against: str | None,
    input_shapes: tuple[InputShape, ...],
    weights: str | None,
    device: str,
    cpu: str | None,
    use: str,
    threads: int,
    as_json: bool,
) -> None:
    """Measure how good a network is: top-1, top-5 and loss on labelled samples; beside another network how often both
    agree, whether the difference is more than chance, and the error of each output.

    A PACKAGE is run by its own library, a MODEL, as pcc compile takes it, by PyTorch. Photos without labels, and
    networks that give no class scores, need --against.
    """
    import torch

    from pcc.cli.console import progress_bar
    from pcc.cli.source import is_package
    from pcc.evaluate.evaluate import evaluate
    from pcc.frontend.imported import is_model_file

    chosen = chosen_device(device, cpu, use)
    packages = [is_package(side) for side in (model, against) if side]
    for option, value, default in (("--device", device, "host"), ("--use", use, "auto")):
        if value != default and not any(packages):
            raise PccError(f"{option} {value} is for packages; {model} is run by PyTorch")
    if all(packages):
        model_only(model, {"--input-shape": input_shapes})
    sides = [model, *([_named(against)[0]] if against else [])]
    if not any(map(is_model_file, sides)):  # a file may leave its batch open
        check_one_image(input_shapes, "pcc eval chooses the batch of a module itself")
    torch.set_num_threads(threads)
    with ExitStack() as stack, progress_bar() as watch:
        watch(f"loading {model}", 0.0)
        network = _network(model, weights, input_shapes, chosen, threads, stack)
        samples = _samples(data, network)
        other = seen_by_other = None
        if against is not None:
            other = _network(*_named(against), input_shapes, chosen, threads, stack)
            alike = (other.input_shape, other.preprocessing) == (network.input_shape, network.preprocessing)
            seen_by_other = samples if alike else _samples(data, other)
        result = evaluate(network, samples, other, seen_by_other, watch)
    click.echo(result.model_dump_json(indent=2)) if as_json else _print(result)


def _named(text: str) -> tuple[str, str | None]:
    """``MODEL=WHAT`` as a model and its weights; a package or model as it is."""
    from pcc.cli.source import is_package

    model, equals, weights = text.partition("=")
    if not equals or is_package(text):
        return text, None
    if not model or not weights:
        raise PccError(f"--against {text}: give a model and its weights, for example resnet50=pruned/model.safetensors")
    return model, weights


def _network(
    model: str,
    weights: str | None,
    input_shapes: tuple[InputShape, ...],
    device: "Device",
    threads: int,
    stack: ExitStack,
) -> "Network":
    from pcc.cli.source import open_source, package_at
    from pcc.evaluate.network import of_file, of_module, of_package

    if package := package_at(model):
        model_only(model, {"--weights": weights})
        return stack.enter_context(of_package(package, device, threads))
    source = open_source(model, weights, chosen_shapes(input_shapes))
    if isinstance(source.model, Path):
        return of_file(model, source.model, source.examples)
    examples = source.examples.values() if isinstance(source.examples, dict) else source.examples
    return of_module(
        model,
        source.model,
        [tuple(example.shape) for example in examples],
        source.preprocessing,
        source.labels,
        next(example.dtype for example in examples),
    )


def _samples(data: str, network: "Network") -> "Samples":
    from pcc.evaluate.samples import open_samples

    return open_samples(data, network.input_shape, network.preprocessing, network.class_names)


def _print(result: "Evaluation") -> None:
    click.echo(f"{result.network} ({result.where}) on {result.data}, {result.samples:,} samples")
    _print_accuracy(result.accuracy)
    if (other := result.against) is None:
        return
    click.echo(f"against {other.network} ({other.where})")
    _print_accuracy(other.accuracy)
    if other.agreement is not None:
        click.echo(f"  same class  {_text(other.agreement)}")
    if other.chance is not None:
        verdict = "more than chance" if other.chance < 0.05 else "may be chance"
        click.echo(
            f"  only {result.network} is right on {other.only_first}, only {other.network} on {other.only_second}: "
            f"{verdict} (McNemar, p = {other.chance:.2g})"
        )
    for output in other.outputs:
        click.echo(f"  {output.name}: largest error {output.largest:.1e} of the largest value, rms {output.rms:.1e}")


def _print_accuracy(accuracy: "Accuracy | None") -> None:
    if accuracy is None:
        return
    click.echo(f"  top-1  {_text(accuracy.top1)}")
    if accuracy.top5 is not None:
        click.echo(f"  top-5  {_text(accuracy.top5)}")
    click.echo(f"  loss   {accuracy.loss:.4f}")


def _text(share: "Share") -> str:
    return f"{share.share:7.2%}  ({share.low:.2%} to {share.high:.2%}), {share.right:,} of {share.count:,}"
