"""The ``pcc`` command. Importing it is cheap: whatever is heavy is imported inside the commands."""

from pcc.cli.app import main

__all__ = ["main"]
