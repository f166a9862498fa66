"""Commands that are killed at random moments, and disks that are full: nothing is lost, nothing half-made is left, and
it is said in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

NAMESPACE = ("unshare", "--map-root-user", "--mount")
"""File systems can be mounted in it, without any right outside."""


@pytest.mark.slow
@pytest.mark.parametrize("command", ["compile", "prune"])
def test_killed_at_random_moments(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.cli.killed", command, "100"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing was lost, nothing was left" in done.stdout


@pytest.mark.slow
def test_full_disks(tmp_path: Path) -> None:
    try:
        subprocess.run([*NAMESPACE, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not run: no namespaces for file systems here (unshare --map-root-user --mount)")
    command = [*NAMESPACE, sys.executable, "-W", "ignore", "-m", "tests.cli.full_disk", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {outcome["status"] for outcome in outcomes} == {0, 2}
    for outcome in outcomes:
        refused = outcome["status"] == 2
        assert outcome["said"].startswith("pcc: error: ") == refused, outcome
        assert len(outcome["said"].splitlines()) == refused, outcome
        if refused and outcome["name"] in ("package", "onnx", "pt2", "safetensors", "output"):
            assert not outcome["left"], outcome
