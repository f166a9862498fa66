"""Ctrl-C: raised where it comes, and again at the next step if a library swallowed it there (imports of large packages do)."""

import signal

_came: list[int] = []


def install() -> None:
    """Notes interrupts from now on. Where the shell wants them ignored they stay ignored."""

    def interrupt(number: int, frame: object) -> None:
        _came.append(number)
        raise KeyboardInterrupt

    _came.clear()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)


def came() -> bool:
    """Whether an interrupt came. What fails after one fails because of it, however it looks."""
    return bool(_came)


def check() -> None:
    """Raises KeyboardInterrupt if one came: nothing may be begun, and nothing published, after it."""
    if _came:
        raise KeyboardInterrupt
