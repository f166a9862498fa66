"""`make bench`: pcc's dense and pruned code beside ONNX Runtime's dense, in one process, taking turns. Weights are random: time does not depend on them."""

import argparse
import sys
from pathlib import Path

import torch

import pcc
from pcc.models import create, entry
from tools.packages import STRUCTURES, compile_package
from tools.peers import interleaved_medians, onnxruntime_runner
from tools.table import table

NETWORKS = ("vgg16", "resnet50", "mobilenet_v2")
FOLDER = Path("out/bench")
PEER = "ONNX Runtime"


def main() -> int:
    """One table: a row for each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=NETWORKS, help=f"zoo names (default: {' '.join(NETWORKS)})")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=21)
    arguments = parser.parse_args()
    rows = [measure(network, arguments.threads, arguments.runs) for network in arguments.networks]
    headers = ["network", *(f"pcc {structure}" for structure in STRUCTURES), f"{PEER}, dense", "dense / peer", "dense / most pruned"]
    print(f"\n{table(headers, rows)}\n\nMedians of {arguments.runs} runs, taking turns, {arguments.threads} thread(s); the last columns are ratios of times.")
    return 0


def measure(network: str, threads: int, runs: int) -> list[str]:
    """Compiles and times one network: its row of the table."""
    image = torch.randn(entry(network).input_shape, generator=torch.Generator().manual_seed(0)).numpy()
    packages = {structure: compile_package(FOLDER, network, structure, "--weights", "none") for structure in STRUCTURES}
    models = {structure: pcc.load(package, threads=threads) for structure, package in packages.items()}
    peer = onnxruntime_runner(create(network, weights=None), image, FOLDER / f"{network}.onnx", threads)
    seconds = interleaved_medians({**{name: lambda model=model: model(image) for name, model in models.items()}, PEER: lambda: peer(image)}, runs)
    dense, pruned = seconds["dense"], seconds[list(STRUCTURES)[-1]]
    times = [f"{seconds[name] * 1e3:.1f} ms" for name in (*STRUCTURES, PEER)]
    return [network, *times, f"{dense / seconds[PEER]:.2f}", f"{dense / pruned:.2f}"]


if __name__ == "__main__":
    sys.exit(main())
