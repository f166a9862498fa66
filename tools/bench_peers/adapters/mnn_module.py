"""MNN, fp32."""

# pyright: reportMissingImports=false
from pathlib import Path
from typing import Any

import MNN
import numpy as np
from MNN import expr, nn

from tools.bench_peers.adapters import adapter


class Adapter(adapter.Adapter):
    def convert(self, into: Path) -> None:
        """By the converter's function: the command ``mnnconvert`` first installs a package into whatever pip it finds,
        and reports its use."""
        import _tools

        files = [
            "--modelFile",
            str(self.folder / adapter.ONNX),
            "--MNNModel",
            str(into / "model.mnn"),
            "--bizCode",
            "pcc",
        ]
        _tools.mnnconvert(["mnnconvert", "-f", "ONNX", *files, *self.options(into)])

    def options(self, into: Path) -> list[str]:
        """More of the converter's arguments."""
        return []

    def load(self) -> None:
        runtime = nn.create_runtime_manager(({"backend": "CPU", "precision": "high", "numThread": 1},))
        self.module = nn.load_module_from_file(
            str(self.converted / "model.mnn"), ["input"], ["output"], runtime_manager=runtime
        )

    def feed(self, image: np.ndarray) -> None:
        self.image = expr.placeholder(list(image.shape), expr.NCHW, expr.float)
        self.image.write(image.copy())

    def run(self) -> Any:
        result = self.module.forward([self.image])
        first = result[0] if isinstance(result, list | tuple) else result
        return expr.convert(first, expr.NCHW).read()  # forces what is computed only when it is read

    def output(self, result: Any) -> np.ndarray:
        return np.array(result)

    def version(self) -> str:
        return MNN.version()
