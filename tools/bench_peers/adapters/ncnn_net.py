"""ncnn, fp32, converted from ONNX by its own pnnx."""

# pyright: reportMissingImports=false
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ncnn
import numpy as np

from tools.bench_peers.adapters import adapter


class Adapter(adapter.Adapter):
    def convert(self, into: Path) -> None:
        """pnnx writes half a dozen files beside its input, and halves the precision of weights unless it is told not
        to.

        The program that is in its wheel, and not its Python front, which needs PyTorch.
        """
        pnnx = find_spec("pnnx")
        assert pnnx is not None
        assert pnnx.origin is not None
        shutil.copyfile(self.folder / adapter.ONNX, into / "model.onnx")
        shape = ",".join(map(str, np.load(self.folder / "input.npy").shape))
        subprocess.run(
            [Path(pnnx.origin).with_name("pnnx"), "model.onnx", f"inputshape=[{shape}]", "fp16=0"], cwd=into, check=True
        )
        for file in into.iterdir():
            if file.name not in ("model.ncnn.param", "model.ncnn.bin"):
                file.unlink()

    def load(self) -> None:
        self.net = ncnn.Net()
        option = self.net.opt
        option.num_threads = 1
        option.use_vulkan_compute = False
        self.set_precision(option)
        self.net.load_param(str(self.converted / "model.ncnn.param"))
        self.net.load_model(str(self.converted / "model.ncnn.bin"))

    def set_precision(self, option: Any) -> None:
        """All in fp32."""
        option.use_fp16_packed = option.use_fp16_storage = option.use_fp16_arithmetic = option.use_bf16_storage = False

    def feed(self, image: np.ndarray) -> None:
        self.image = ncnn.Mat(np.ascontiguousarray(image[0])).clone()

    def run(self) -> Any:
        extractor = self.net.create_extractor()
        extractor.input("in0", self.image)
        return extractor.extract("out0")[1]

    def output(self, result: Any) -> np.ndarray:
        return np.array(result)

    def version(self) -> str:
        return ncnn.__version__
