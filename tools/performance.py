"""docs/performance.md: written from what the measuring tools have left on this machine."""

import sys
from pathlib import Path

from tools.bench_peers.page import page
from tools.bench_peers.result import load_results
from tools.count_arm64.page import arm64_section
from tools.count_arm64.result import load_counts
from tools.never_slower.page import sweep_section
from tools.never_slower.result import load_sweeps

PAGE = Path("docs/performance.md")
NETWORK_FILES = Path("out/bench_peers/networks")
"""Networks' files, which both tools use."""
RESULTS = Path("out/bench_peers/results")
COUNTS = Path("out/count_arm64")
SWEEPS = Path("docs/results/never_slower")
CHARTS = Path("docs/charts")


def write_page() -> None:
    """Times, counts, the sweep; says what it wrote."""
    results, counts, sweeps = load_results(RESULTS), load_counts(COUNTS), load_sweeps(SWEEPS)
    PAGE.write_text(
        "\n".join(filter(None, [page(results), arm64_section(counts), sweep_section(sweeps, CHARTS)])), encoding="utf-8"
    )
    points = sum(len(sweep.points) for sweep in sweeps)
    print(
        f"wrote {PAGE}: times of {len(results)} networks and layers, counts of {len(counts)}, {points} points of the "
        "sweep",
        file=sys.stderr,
    )
