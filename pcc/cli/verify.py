"""``pcc verify``: whether a package is whole, and computes what its model did."""

import json
from pathlib import Path

import click

from pcc.cli.command import Command
from pcc.cli.options import chosen_device, device_options, json_option, say_why_no_gpu, threads_option

FAILED_STATUS = 1
"""Of a package that is whole and computes something else."""


@click.command("verify", cls=Command)
@click.argument("package", type=click.Path(path_type=Path))
@device_options
@threads_option
@json_option
def command(package: Path, device: str, cpu: str | None, use: str, threads: int, as_json: bool) -> int:
    """Check every file of PACKAGE, and compare what it computes with what the model gave when it was compiled.

    The exit status is 1 where the results differ by more than the package allows.
    """
    from pcc.cli.console import progress
    from pcc.package.read import open_package

    opened = open_package(package)
    chosen = chosen_device(device, cpu, use)
    name = chosen.named(opened)
    opened.verify()
    with progress() as step:
        step(f"running on {name}")
        result = chosen.selftest(opened, threads)
    say_why_no_gpu(result.device)
    if as_json:
        report = result.model_dump() | {"device": name, "computed_by": result.device}
        click.echo(json.dumps(report, indent=2))
    else:
        computed = result.device if result.device.startswith("gpu") else "cpu"
        click.echo(
            f"{opened.manifest.name}, on {name}, {computed}: {'right' if result.passed else 'WRONG'}, largest "
            f"error {result.max_error:.1e} of the largest value, {result.tolerance:.0e} allowed"
        )
    return 0 if result.passed else FAILED_STATUS
