"""The one exception a user sees, a single clear line, and what keeps it short."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class PccError(Exception):
    """Wrong use or bad input: what is wrong, where (file, node, layer), and what to do, in one line.

    The command line prints it without a traceback and exits with status 2.
    """


class PccWarning(UserWarning):
    """What a user should know of a result that is right: a choice between two weights, for example. The command line
    prints it as a line on standard error."""


def shortened(text: str, width: int) -> str:
    """A text that is not ours, for an error: the middle of a long one is left out."""
    return text if len(text) <= width else f"{text[: width // 2]}...{text[-width // 2 :]}"


def suggestion(name: str, known: Iterable[str]) -> str:
    """``did you mean X?`` where a known name is near, else all of them."""
    names = tuple(known)
    near = get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(names)}" if names else "there are none"


def first_problem(error: "ValidationError") -> str:
    """The first thing that is wrong and where, in one line."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return " ".join(f"{f'{place}: ' if place else ''}{first['msg']}".split())
