"""The one exception a user sees, a single clear line, and what keeps it short."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class PccError(Exception):
    """Wrong use or bad input: what is wrong, where (file, node, layer), and what to do, in one line.

    The command line prints it without a traceback and exits with status 2.
    """


def shortened(text: str, width: int) -> str:
    """A text that is not ours, for an error: the middle of a long one is left out."""
    return text if len(text) <= width else f"{text[: width // 2]}...{text[-width // 2 :]}"


def first_problem(error: "ValidationError") -> str:
    """The first thing that is wrong and where, in one line."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return " ".join(f"{f'{place}: ' if place else ''}{first['msg']}".split())
