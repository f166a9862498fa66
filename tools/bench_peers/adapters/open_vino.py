"""OpenVINO's CPU plugin, in fp32: left alone it computes in bf16 or fp16 where the processor can."""

# pyright: reportMissingImports=false
from typing import Any

import numpy as np
import openvino

from tools.bench_peers.adapters import adapter

CONFIGURATION = {
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "INFERENCE_PRECISION_HINT": "f32",
    "PERFORMANCE_HINT": "LATENCY",
    "ENABLE_CPU_PINNING": False,
}


class Adapter(adapter.Adapter):
    def load(self) -> None:
        self.request = self._request()

    def feed(self, image: np.ndarray) -> None:
        self.image = image
        self.request.set_input_tensor(openvino.Tensor(image.copy()))

    def run(self) -> None:
        self.request.infer()

    def output(self, result: None) -> np.ndarray:
        return self.request.get_output_tensor(0).data.copy()

    def version(self) -> str:
        return openvino.__version__.split("-")[0]

    def layers(self, runs: int) -> dict[str, float]:
        request = self._request(PERF_COUNT=True)
        request.set_input_tensor(openvino.Tensor(self.image.copy()))
        seconds: dict[str, float] = {}
        request.infer()
        for _ in range(runs):
            request.infer()
            for part in request.profiling_info:
                if part.real_time:
                    seconds[part.node_name] = seconds.get(part.node_name, 0.0) + part.real_time.total_seconds() / runs
        return seconds

    def _request(self, **configuration: Any) -> openvino.InferRequest:
        model = openvino.Core().compile_model(
            str(self.folder / adapter.ONNX), "CPU", {**CONFIGURATION, **configuration}
        )
        return model.create_infer_request()
