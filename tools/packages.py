"""Packages made by the command line, as a user makes them, and what is in them."""

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pcc.package import open_package


def run_compile(package: Path, network: str, *options: str) -> Path:
    """Runs ``pcc compile`` for this machine, without what is tuned or calibrated there, showing the command, and gives
    the package's folder. Ends this program when it fails."""
    costs = ["--machine-profile", "built-in", "--tuning-records", "none"]
    arguments = ["compile", network, "-o", str(package), *options, *costs]
    print(f"\n$ pcc {shlex.join(arguments)}", flush=True)
    done = subprocess.run([Path(sys.executable).with_name("pcc"), *arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return package


@dataclass(frozen=True)
class Facts:
    """What a package for one target holds."""

    library_bytes: int
    convolutions: int
    sparse: int
    """Convolutions that a sparse kernel runs."""


def facts(package: Path) -> Facts:
    """Reads a package's manifest."""
    manifest = open_package(package).manifest
    target = manifest.targets[0]
    families = [
        layer.choice.family for layer in target.layers if layer.choice and layer.choice.family.startswith("conv")
    ]
    return Facts(
        manifest.files[target.library].size, len(families), sum(family.startswith("conv-sparse") for family in families)
    )
