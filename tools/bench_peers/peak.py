"""The fp32 multiply-adds that a core can do at best, measured, and what share of them layers reach."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from math import exp, log
from pathlib import Path


def measured_peak(core: int) -> float:
    """Multiply-accumulates per second of one core: vectors of this processor's widest kind, in registers (`peak.c`)."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "peak"
        source = Path(__file__).with_name("peak.c")
        subprocess.run(
            [
                sys.executable,
                "-m",
                "ziglang",
                "cc",
                "-O2",
                "-march=native",
                "-ffp-contract=fast",
                "-o",
                program,
                source,
            ],
            check=True,
        )
        done = subprocess.run(
            [program], capture_output=True, text=True, check=True, preexec_fn=lambda: os.sched_setaffinity(0, {core})
        )
        return float(done.stdout)


def geometric_mean(values: Sequence[float]) -> float:
    return exp(sum(map(log, values)) / len(values))
