"""The one exception a user sees, a single clear line, and what keeps it short."""


class PccError(Exception):
    """Wrong use or bad input: what is wrong, where (file, node, layer), and what to do, in one line.

    The command line prints it without a traceback and exits with status 2.
    """


def shortened(text: str, width: int) -> str:
    """A text that is not ours, for an error: the middle of a long one is left out."""
    return text if len(text) <= width else f"{text[: width // 2]}...{text[-width // 2 :]}"
