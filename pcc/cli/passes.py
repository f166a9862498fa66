"""``pcc passes``: what a pipeline can be made of."""

import json
from typing import Any

import click

from pcc.cli.command import Command
from pcc.cli.options import json_option


@click.command("passes", cls=Command)
@json_option
def command(as_json: bool) -> None:
    """List the passes, their options with defaults, and the default pipeline."""
    from pcc.passes.pipeline import DEFAULT_PIPELINE
    from pcc.passes.registry import pass_class, pass_names, pass_summary

    rows: list[dict[str, Any]] = [
        {
            "pass": name,
            "summary": pass_summary(name),
            "exact": pass_class(name).exact,
            "options": _options(pass_class(name)),
        }
        for name in pass_names()
    ]
    if as_json:
        click.echo(json.dumps({"passes": rows, "default_pipeline": DEFAULT_PIPELINE}, indent=2))
        return
    for row in rows:
        click.echo(f"{row['pass']:20} {row['summary']}{'' if row['exact'] else ' Changes what the network computes.'}")
        if row["options"]:
            click.echo(
                f"{'':20} options: "
                f"{', '.join(f'{option}={_text(default)}' for option, default in row['options'].items())}"
            )
    click.echo(f"\nDefault pipeline: {DEFAULT_PIPELINE}")


def _options(cls: type) -> dict[str, object]:
    """Each option of a pass with its default, as JSON has it; null for an option that must be given."""
    from dataclasses import MISSING, fields

    defaults = {}
    for field in fields(cls):  # type: ignore[arg-type]  # passes are dataclasses
        if field.init:
            default = field.default_factory() if field.default_factory is not MISSING else field.default
            defaults[field.name] = None if default is MISSING else json.loads(json.dumps(default, default=dict))
    return defaults


def _text(default: object) -> str:
    return "none" if default is None else json.dumps(default).replace('"', "").lower()
