"""Ctrl-C: raised where it comes, and again at the next step if a library swallowed it there (imports of large packages
do)."""

import signal
from collections.abc import Generator
from contextlib import contextmanager

_came: list[int] = []


@contextmanager
def noted() -> Generator[None]:
    """Notes the interrupts that come inside the block. Where the shell wants them ignored they stay ignored."""

    def interrupt(number: int, frame: object) -> None:
        _came.append(number)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        _came.clear()


def came() -> bool:
    """Whether an interrupt came. What fails after one fails because of it, however it looks."""
    return bool(_came)


def check() -> None:
    """Raises KeyboardInterrupt if one came: nothing may be begun, and nothing published, after it."""
    if _came:
        raise KeyboardInterrupt
