"""``pcc tune``: what a processor's costs are."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pcc.cli.options import chosen_targets, json_option
from pcc.config import saved_profile
from pcc.errors import PccError

if TYPE_CHECKING:
    from pcc.tune.calibrate import Calibration


@click.command("tune")
@click.option("--calibrate", is_flag=True, help="Find what a processor's costs are, by which kernels are chosen.")
@click.option("--target", "target_names", multiple=True, metavar="TARGET", help="What is compiled for (pcc targets). Default: this machine.")
@click.option("--cpu", "cpus", multiple=True, metavar="CPU", help="The processor.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Where the profile goes. Default: where pcc compile looks for it.")
@json_option
def command(calibrate: bool, target_names: tuple[str, ...], cpus: tuple[str, ...], output: Path | None, as_json: bool) -> None:
    """Fit pcc's cost model to a processor.

    With --calibrate, layers of known networks are run by several schedules of every kernel family, and costs are fitted to what they took: times, if this
    computer executes the target's code, else instructions that arm64 code executes under QEMU. That takes some minutes; leave the computer alone
    meanwhile. Ctrl-C loses nothing: the next call goes on. pcc compile uses the profile for that processor, and says so, until the file is removed.
    """
    if not calibrate:
        raise click.UsageError("say what to tune: --calibrate")
    targets = chosen_targets(target_names, cpus)
    if len(targets) > 1:
        raise PccError("calibrate one target at a time")
    from pcc.cli.console import progress
    from pcc.tune.calibrate import calibrate as run

    path = output or saved_profile(targets[0])
    if path.is_dir():
        raise PccError(f"{path} is a folder: -o names a file")
    with progress() as step:
        found = run(targets[0], step, os.cpu_count() or 1)
    if found.is_better:
        found.save(path)
    found.measurements.forget()
    if as_json:
        click.echo(json.dumps(_as_json(found, path), indent=2))
    else:
        _print(found, path, output is None)


def _print(found: "Calibration", path: Path, is_default: bool) -> None:
    from pcc.cli.console import print_table

    name = found.profile.name
    click.echo(f"{name}: {found.profile.origin}")
    if found.measurements.noise:
        click.echo(f"The median round of a schedule is {found.measurements.noise:.0%} above its least.")
    click.echo()
    rows = [(kind, f"{found.built_in.costs[kind]:g}", f"{fitted:g}") for kind, fitted in found.profile.costs.items()]
    print_table(["cost of", "built-in", "fitted"], rows)
    click.echo()
    rankings = (("built-in", found.ranking_built_in), ("fitted", found.ranking))
    rows = [(name, f"{made.loss - 1:.1%}", f"{made.worst_loss - 1:.0%}", made.worst_layer, f"{made.correlation:.2f}") for name, made in rankings]
    print_table(["costs", "slower than the best", "at worst", "in layer", "rank correlation"], rows)
    click.echo()
    if not found.is_better:
        click.echo("Not saved: the built-in costs choose better.")
    elif is_default:
        click.echo(f"Saved as {path}: pcc compile uses it for {name} from now on, and says so (--machine-profile built-in does without).")
    else:
        click.echo(f"Saved as {path}: pcc compile --machine-profile {path} uses it.")


def _as_json(found: "Calibration", path: Path) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "profile": found.profile.model_dump(),
        "built_in": found.built_in.model_dump(),
        "saved": str(path) if found.is_better else None,
        "ranking": asdict(found.ranking),
        "ranking_built_in": asdict(found.ranking_built_in),
        "noise": found.measurements.noise,
        "schedules": found.taken,
    }
