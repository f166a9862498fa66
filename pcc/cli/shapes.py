"""``--input-shape``: shapes of inputs as they are written on a command line."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import click

from pcc.errors import PccError, shortened

MOST_ELEMENTS = 2**28
"""Of one input: 1 GiB as fp32."""
MOST_AXES = 8


class Shape(click.ParamType[tuple[int, ...]]):
    """``1,3,224,224`` as a tuple of positive integers: at most `MOST_AXES` of them, with a product of at most
    `MOST_ELEMENTS`."""

    name = "N,C,H,W"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        sizes = str(value).replace("x", ",").split(",")
        if len(sizes) > MOST_AXES or not all(re.fullmatch("0*[1-9][0-9]*", size) for size in sizes):
            self.fail(
                f"'{shortened(str(value), 80)}' is not a shape: give up to {MOST_AXES} positive sizes as in "
                "1,3,224,224",
                param,
                ctx,
            )
        if max(map(len, sizes)) > 18 or prod(map(int, sizes)) > MOST_ELEMENTS:
            self.fail(
                f"'{shortened(str(value), 80)}' is too large: an input has at most {MOST_ELEMENTS:,} numbers (1 GiB)",
                param,
                ctx,
            )
        return tuple(map(int, sizes))


INPUT_TYPES = ("float32", "uint8", "int8", "int32", "int64", "bool")
"""As `pcc.frontend.inputs` has them."""


@dataclass(frozen=True)
class InputShape:
    """An input of the command line: ``image=1,3,224,224``, ``1,77:int64``."""

    name: str | None
    shape: tuple[int, ...]
    dtype: str | None = None
    """fp32, or what a model's file says, unless it is written."""


class NamedShape(Shape):
    """A `Shape` as `InputShape`, with or without the input's name in front and its type behind."""

    name = "[NAME=]N,C,H,W[:TYPE]"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> InputShape:  # type: ignore[override]
        name, equals, rest = str(value).rpartition("=")
        if equals and not name:
            self.fail(
                f"'{shortened(str(value), 80)}' has no name before '=': give NAME={shortened(rest, 80)}, or the shape "
                "alone",
                param,
                ctx,
            )
        shape, colon, dtype = rest.partition(":")
        if colon and dtype not in INPUT_TYPES:
            self.fail(
                f"'{shortened(dtype, 80)}' is no type of an input: choose one of {', '.join(INPUT_TYPES)}", param, ctx
            )
        return InputShape(name if equals else None, super().convert(shape, param, ctx), dtype or None)


input_shapes_option = click.option(
    "--input-shape",
    "input_shapes",
    type=NamedShape(),
    multiple=True,
    help="Shape of an input, and its type if not fp32; once for each, in order or by name. Zoo models know theirs.",
)


def chosen_shapes(shapes: Sequence[InputShape]) -> tuple[InputShape, ...] | dict[str, InputShape]:
    """The shapes of a command line, all with names or all without; `PccError` for a mixture and for a name that comes
    twice."""
    names = [taken.name for taken in shapes if taken.name is not None]
    if names and len(names) < len(shapes):
        raise PccError("--input-shape: give all shapes by name, or all in order")
    if twice := [name for name in names if names.count(name) > 1]:
        raise PccError(f"--input-shape: {twice[0]} has two shapes")
    return {str(taken.name): taken for taken in shapes} if names else tuple(shapes)


def check_one_image(shapes: Sequence[InputShape], why: str) -> None:
    """`PccError` for shapes of several images, where a command runs a network on batches of its own; ``why`` says
    which."""
    for taken in shapes:
        if len(taken.shape) == 4 and taken.shape[0] != 1:
            text = ",".join(map(str, taken.shape))
            raise PccError(f"--input-shape {text}: {why}, give 1 for the first size")
