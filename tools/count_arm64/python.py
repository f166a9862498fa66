"""An arm64 Python with the peers' wheels, for QEMU: Debian's packages unpacked into a folder of pcc's cache, wheels
beside them. Nothing is installed here."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pcc.cache import cache_root
from pcc.deploy.counting_qemu import CPU, plugin_words
from tools.bench_peers.environments import Unavailable, last_error

PACKAGES = ("python3.11-minimal", "libpython3.11-stdlib", "libgomp1", "libstdc++6")
"""Debian's of bookworm; apt adds what they need."""
WHEELS = ("numpy==2.4.6", "ncnn==1.0.20261020", "MNN==3.6.1")
PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64")
_CPUINFO = (
    "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0b\nCPU "
    "revision\t: 1\n"
)
"""A Cortex-A76's /proc/cpuinfo: QEMU shows the host's, and libraries that look there would take themselves to be on
x86."""


def arm64_python() -> Path:
    """The folder with the root and the wheels, made once. `Unavailable` where it cannot be."""
    folder = cache_root() / "peers" / "arm64"
    stamp, pins = folder / "pins.txt", "\n".join((*PACKAGES, *WHEELS))
    if stamp.is_file() and stamp.read_text() == pins:
        return folder
    if shutil.which("apt-get") is None:
        raise Unavailable("needs Debian's apt-get, which fetches an arm64 Python")
    print(f"fetching an arm64 Python with {' '.join(WHEELS)}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "root" / "proc").mkdir(parents=True)
    for package in _download(PACKAGES, folder / "packages"):
        _run(["dpkg-deb", "-x", package, folder / "root"])
    (folder / "root" / "proc" / "cpuinfo").write_text(_CPUINFO)
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
    ]
    _run([*pip, "--python-version", "3.11", "--implementation", "cp", *platforms, "--target", folder / "site", *WHEELS])
    stamp.write_text(pins)
    return folder


def command(folder: Path, counts: Path, memory: bool, path: Sequence[Path]) -> list[str]:
    """The words that start that Python in a counting QEMU, with these folders to import from."""
    root = folder / "root"
    search = ":".join(map(str, (folder / "site", *path)))
    variables = [
        f"LD_LIBRARY_PATH={root}/usr/lib/aarch64-linux-gnu:{root}/lib/aarch64-linux-gnu",
        f"PYTHONPATH={search}",
        "OMP_NUM_THREADS=1",
    ]
    words = [word for variable in variables for word in ("-E", variable)]
    return [
        "qemu-aarch64",
        "-cpu",
        CPU,
        *plugin_words(counts, memory),
        "-L",
        str(root),
        *words,
        f"{root}/usr/bin/python3.11",
    ]


def _download(packages: Sequence[str], folder: Path) -> list[Path]:
    """arm64 packages with what they depend on, by an apt that has its lists and its idea of what is installed (nothing)
    in a folder of its own."""
    with tempfile.TemporaryDirectory() as state:
        for part in ("state/lists/partial", "cache/archives/partial"):
            (Path(state) / part).mkdir(parents=True)
        (Path(state) / "status").touch()
        settings = {
            "APT::Architecture": "arm64",
            "APT::Architectures::": "arm64",
            "APT::Sandbox::User": "root",
            "Dir::State": f"{state}/state",
            "Dir::State::status": f"{state}/status",
            "Dir::Cache": f"{state}/cache",
        }
        apt = ["apt-get", "-qq", *(word for setting in settings.items() for word in ("-o", "=".join(setting)))]
        _run([*apt, "update"])
        _run([*apt, "install", "--download-only", "-y", "--no-install-recommends", *packages])
        shutil.copytree(f"{state}/cache/archives", folder, ignore=shutil.ignore_patterns("partial", "lock"))
    return sorted(folder.glob("*.deb"))


def _run(words: Sequence[str | Path]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{Path(words[0]).name} failed: {last_error(done.stderr)}")
