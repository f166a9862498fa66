"""DeepSparse, the engine of Neural Magic that gains from unstructured zeros on x86-64; its last release."""

# pyright: reportMissingImports=false
from typing import Any

import deepsparse
import numpy as np

from tools.bench_peers.adapters import adapter

LEAST = 0.9
"""Share of operators that DeepSparse has to run itself."""


class Adapter(adapter.Adapter):
    def load(self) -> None:
        self.engine = deepsparse.Engine(model=str(self.folder / adapter.ONNX), batch_size=1, num_cores=1)

    def feed(self, image: np.ndarray) -> None:
        self.images = [image.copy()]

    def run(self) -> list[np.ndarray]:
        return self.engine.run(self.images)

    def output(self, result: list[np.ndarray]) -> np.ndarray:
        return result[0]

    def version(self) -> str:
        return deepsparse.__version__

    def evidence(self) -> dict[str, Any]:
        """It hands what it cannot do to an ONNX Runtime inside it, without a word."""
        share = self.engine.fraction_of_supported_ops
        if share < LEAST:
            raise RuntimeError(
                f"DeepSparse supports {share:.0%} of the operators, its embedded ONNX Runtime computes the rest"
            )
        return {"supported operators": share}
