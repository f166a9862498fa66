"""ONNX Runtime, all graph optimisations."""

# pyright: reportMissingImports=false
import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tools.bench_peers.adapters import adapter


class Adapter(adapter.Adapter):
    def load(self) -> None:
        self.session = self._session(self._options())

    def feed(self, image: np.ndarray) -> None:
        self.inputs = {self.session.get_inputs()[0].name: image}

    def run(self) -> Any:
        return self.session.run(None, self.inputs)

    def output(self, result: Any) -> np.ndarray:
        return result[0]

    def version(self) -> str:
        return onnxruntime.__version__

    def layers(self, runs: int) -> dict[str, float]:
        """By its own profiler, in a session of its own: profiling slows a session down."""
        with tempfile.TemporaryDirectory() as folder:
            options = self._options()
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = self._session(options)
            for _ in range(1 + runs):
                session.run(None, self.inputs)
            return kernel_seconds(json.loads(Path(session.end_profiling()).read_text()), runs)

    def _options(self) -> onnxruntime.SessionOptions:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        return options

    def _session(self, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(
            str(self.folder / adapter.ONNX), options, providers=["CPUExecutionProvider"]
        )


def kernel_seconds(events: list[dict[str, Any]], runs: int) -> dict[str, float]:
    """Mean seconds of each node's kernel over the last ``runs`` runs of a profile (Chrome trace events,
    microseconds)."""
    micros = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            micros[event["name"].removesuffix("_kernel_time")].append(event["dur"])
    return {name: sum(times[-runs:]) / runs * 1e-6 for name, times in micros.items()}
