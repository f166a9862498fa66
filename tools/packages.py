"""Packages made by the command line, as a user makes them."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

STRUCTURES: dict[str, str | None] = {
    "dense": None,
    "8 patterns": "pattern{patterns=8}",
    "8 patterns, connectivity": "pattern{patterns=8},connectivity",
}
"""A name for the table, and what ``--prune`` is given."""


def compile_package(folder: Path, network: str, structure: str, *options: str) -> Path:
    """Runs ``pcc compile`` for this machine, showing the command, and gives the package's folder. Ends this program when it fails."""
    package = folder / f"{network}-{re.sub('[^a-z0-9]+', '-', structure)}"
    prune = STRUCTURES[structure]
    arguments = ["compile", network, "-o", str(package), *options, *(["--prune", prune] if prune else [])]
    print(f"\n$ pcc {shlex.join(arguments)}", flush=True)
    done = subprocess.run([Path(sys.executable).with_name("pcc"), *arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return package
