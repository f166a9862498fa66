"""``pcc targets``: what can be compiled for."""

import json

import click

from pcc.cli.command import Command
from pcc.cli.options import json_option


@click.command("targets", cls=Command)
@json_option
def command(as_json: bool) -> None:
    """List the targets, the processors of each, and the families of GPUs that --gpu knows."""
    from pcc.codegen.gpu_backend import BACKENDS, backend_named
    from pcc.target import ARM_CPUS, GENERIC, TARGETS, X86_CPUS

    gpus = {name: backend_named(name).profiles for name in BACKENDS}
    cpus = {"x86_64": ["native", GENERIC, *X86_CPUS], "aarch64": [GENERIC, *ARM_CPUS]}
    rows = [
        {"target": target.name, "isa": target.isa, "default_cpu": target.cpu, "cpus": cpus[target.arch], "gpus": gpus}
        for target in TARGETS.values()
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        click.echo(f"{row['target']:16} {row['isa']:7} --cpu {', '.join(row['cpus'])} (default {row['default_cpu']})")
    for interface, profiles in gpus.items():
        click.echo(f"\nand with any of them --gpu {interface}[:PROFILE,...]: {', '.join(profiles)} (default generic)")
