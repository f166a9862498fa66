"""Numbers as they are written on a command line. NaN and infinity are none: every comparison with them goes one way."""

import math

import click


class Number(click.ParamType[float]):
    """A finite number, of which only those above ``above`` are taken if that is given."""

    name = "NUMBER"

    def __init__(self, above: float | None = None) -> None:
        self.above = above

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value)
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            self.fail(f"'{text[:40]}' is no number: give a finite one, as in 1.5", param, ctx)
        if self.above is not None and number <= self.above:
            self.fail(f"{text[:40]} is too little: give more than {self.above:g}", param, ctx)
        return number


class Part(click.ParamType[float]):
    """``0.99`` or ``99%`` as 0.99."""

    name = "SHARE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value)
        try:
            part = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            part = math.nan
        if not math.isfinite(part):
            self.fail(f"'{text[:40]}' is no share: give it as in 0.99 or 99%", param, ctx)
        return part
