"""What a command of pcc is beyond what click makes of it."""

from typing import Any

import click


class Command(click.Command):
    """A command that takes no empty words: ``--weights "$FILE"`` where ``FILE`` is not set would silently mean what the
    option's absence means, and ``-o ""`` the folder one is in."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given: dict[str, Any] = self.make_parser(ctx).parse_args(args=list(args))[0]
        for parameter in self.get_params(ctx):
            value = given.get(parameter.name or "")
            if value == "" or (isinstance(value, list | tuple) and "" in value):
                raise click.BadParameter(
                    "it is empty: give a value"
                    + (", or leave the option out" if isinstance(parameter, click.Option) else ""),
                    ctx,
                    parameter,
                )
        return super().parse_args(ctx, args)
