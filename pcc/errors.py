"""The one exception a user sees: a single clear line."""


class PccError(Exception):
    """Wrong use or bad input: what is wrong, where (file, node, layer), and what to do, in one line.

    The command line prints it without a traceback and exits with status 2.
    """
