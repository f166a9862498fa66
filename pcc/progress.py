"""The functions by which long work says how far it is. The caller gives them; `quiet` is for one that does not care."""

from collections.abc import Callable

Progress = Callable[[str], None]
"""Is told each step as it begins: ``importing the model``."""

Watch = Callable[[str, float], None]
"""Is told what runs, and the part of all that is over, 0..1."""


def quiet(what: str, done: float = 0.0) -> None:
    """A `Progress` and a `Watch` that shows nothing."""
