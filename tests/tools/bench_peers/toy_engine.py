"""An engine that doubles its input, and fails in every way that engines do."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tools.bench_peers.adapters import adapter

print("engines print when they are imported")


class Adapter(adapter.Adapter):
    def convert(self, into: Path) -> None:
        (into / "factor.txt").write_text("2")

    def load(self) -> None:
        os.write(1, b"and when they load\n")
        self.factor = int((self.converted / "factor.txt").read_text())

    def feed(self, image: np.ndarray) -> None:
        self.image = image

    def run(self) -> np.ndarray:
        return self.factor * self.image

    def output(self, result: np.ndarray) -> np.ndarray:
        return result

    def version(self) -> str:
        return "1.2"

    def evidence(self) -> dict[str, Any]:
        if self.image.min() < 0:
            raise RuntimeError("negative\nand more lines")
        return {"factor": self.factor}

    def layers(self, runs: int) -> None:
        print("out of memory", file=sys.stderr, flush=True)
        os.abort()
