"""LiteRT with its XNNPACK delegate. Its sparse kernels are not tried: they do not engage for networks converted from
PyTorch."""

# pyright: reportMissingImports=false
from importlib.metadata import version
from pathlib import Path

import numpy as np

from tools.bench_peers.adapters import adapter


class Adapter(adapter.Adapter):
    def convert(self, into: Path) -> None:
        """With the input in LiteRT's layout, channels last."""
        import litert_torch
        import torch

        image = torch.from_numpy(np.load(self.folder / "input.npy"))
        module = litert_torch.to_channel_last_io(torch.export.load(self.folder / adapter.EXPORTED).module(), args=[0])
        litert_torch.convert(module, (image.permute(0, 2, 3, 1).contiguous(),)).export(str(into / "model.tflite"))

    def load(self) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(str(self.converted / "model.tflite"), num_threads=1)
        self.interpreter.allocate_tensors()

    def feed(self, image: np.ndarray) -> None:
        self.interpreter.set_tensor(
            self.interpreter.get_input_details()[0]["index"], np.ascontiguousarray(image.transpose(0, 2, 3, 1))
        )

    def run(self) -> None:
        self.interpreter.invoke()

    def output(self, result: None) -> np.ndarray:
        return self.interpreter.get_tensor(self.interpreter.get_output_details()[0]["index"])

    def version(self) -> str:
        return version("ai-edge-litert")
