"""PyTorch's own compiler. Frozen: else it folds no batch norm and reorders weights in every call."""

# pyright: reportMissingImports=false
import os
from typing import Any

import numpy as np

from tools.bench_peers.adapters import adapter


class Adapter(adapter.Adapter):
    def load(self) -> None:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(self.folder / "inductor")
        import torch
        from torch._inductor import config

        config.freezing = True
        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
        self.torch = torch
        self.module = torch.compile(torch.export.load(self.folder / adapter.EXPORTED).module(), dynamic=False)

    def feed(self, image: np.ndarray) -> None:
        self.image = self.torch.from_numpy(image.copy())

    def run(self) -> Any:
        return self.module(self.image)

    def output(self, result: Any) -> np.ndarray:
        return result.numpy()

    def version(self) -> str:
        return self.torch.__version__.split("+")[0]
