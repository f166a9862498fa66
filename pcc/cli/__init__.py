"""The ``pcc`` command. Importing it is cheap: whatever is heavy is imported inside the commands."""

import sys


def main() -> None:
    """What the ``pcc`` script calls."""
    try:
        from pcc.cli.app import main as run
    except KeyboardInterrupt:  # before anything could note it
        print("pcc: error: interrupted", file=sys.stderr)
        sys.exit(130)
    run()


__all__ = ["main"]
