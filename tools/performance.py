"""docs/performance.md: written from what the measuring tools have left on this machine."""

import sys
from pathlib import Path

from tools.bench_peers.page import page
from tools.bench_peers.result import load_results
from tools.count_arm64.page import arm64_section
from tools.count_arm64.result import load_counts

PAGE = Path("docs/performance.md")
NETWORK_FILES = Path("out/bench_peers/networks")
"""Networks' files, which both tools use."""
RESULTS = Path("out/bench_peers/results")
COUNTS = Path("out/count_arm64")


def write_page() -> None:
    """Times, then counts; says what it wrote."""
    results, counts = load_results(RESULTS), load_counts(COUNTS)
    PAGE.write_text(page(results) + "\n" + arm64_section(counts), encoding="utf-8")
    print(f"wrote {PAGE}: times of {len(results)} networks and layers, counts of {len(counts)}", file=sys.stderr)
