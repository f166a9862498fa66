"""pcc: the package that this checkout compiled."""

from importlib.metadata import version

import numpy as np

import pcc
from tools.bench_peers.adapters import adapter


class Adapter(adapter.Adapter):
    def load(self) -> None:
        self.model = pcc.load(self.folder / adapter.PACKAGE)

    def feed(self, image: np.ndarray) -> None:
        self.image = image

    def run(self) -> np.ndarray:
        return self.model(self.image)

    def output(self, result: np.ndarray) -> np.ndarray:
        return result

    def version(self) -> str:
        return version("pcc")

    def layers(self, runs: int) -> dict[str, float]:
        seconds: dict[str, float] = {}
        for _ in range(runs):
            self.run()
            for call in self.model.profile():
                seconds[call.layer] = seconds.get(call.layer, 0.0) + call.seconds / runs
        return seconds
