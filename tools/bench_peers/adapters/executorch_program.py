"""ExecuTorch with its XNNPACK delegate."""

# pyright: reportMissingImports=false
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tools.bench_peers.adapters import adapter


class Adapter(adapter.Adapter):
    def convert(self, into: Path) -> None:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        exported = torch.export.load(self.folder / adapter.EXPORTED)
        program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
        (into / "model.pte").write_bytes(program.buffer)

    def load(self) -> None:
        """On one thread: left alone it takes one for each core of the machine, those that its process may not use
        included."""
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
        from executorch.runtime import Runtime

        _unsafe_reset_threadpool(1)
        self.program = Runtime.get().load_program(self.converted / "model.pte")
        self.method = self.program.load_method("forward")

    def feed(self, image: np.ndarray) -> None:
        self.image = torch.from_numpy(image.copy())

    def run(self) -> Any:
        return self.method.execute([self.image])

    def output(self, result: Any) -> np.ndarray:
        return result[0].numpy()

    def version(self) -> str:
        return version("executorch")
