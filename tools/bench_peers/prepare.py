"""A network's files: the same weights as an ONNX file, as PyTorch's exported program, and as pcc's package; an input,
and the output in float64."""

import copy
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import pcc
from tools.bench_peers.adapters.adapter import EXPORTED, ONNX, PACKAGE
from tools.bench_peers.engines import ENGINES
from tools.bench_peers.networks import LayerMacs, Network, layer_macs
from tools.bench_peers.onnx_file import export_onnx


@dataclass(frozen=True)
class Prepared:
    """A network that is ready to run, in a folder."""

    network: Network
    folder: Path
    layers: dict[str, LayerMacs]
    """By the module's path."""

    @property
    def dense_macs(self) -> int:
        return sum(layer.dense for layer in self.layers.values())

    @property
    def kept_macs(self) -> int:
        return sum(layer.kept for layer in self.layers.values())

    def reference(self) -> np.ndarray:
        """The output in float64."""
        return np.load(self.folder / "reference.npy")


def prepare(network: Network, root: Path) -> Prepared:
    """Writes the files below ``root``. Files of the same weights that are there, with what engines converted them to,
    are kept."""
    folder, module = root / network.name.replace(":", "-"), network.module()
    image = torch.randn(network.input_shape, generator=torch.Generator().manual_seed(0))
    stamp, weights = folder / "weights.txt", _digest(module)
    if not (stamp.is_file() and stamp.read_text() == weights):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        np.save(folder / "input.npy", image.numpy())
        with torch.inference_mode():
            np.save(folder / "reference.npy", copy.deepcopy(module).double()(image.double()).numpy())
        export_onnx(module, image, folder / ONNX)
        torch.export.save(torch.export.export(module, (image,)), folder / EXPORTED)
        stamp.write_text(weights)
    return Prepared(network, folder, layer_macs(module, network.input_shape))


def compile_package(prepared: Prepared) -> None:
    """pcc's package for this machine, made anew: pcc is what changes. Raises `PccError` as pcc does."""
    image = torch.from_numpy(np.load(prepared.folder / "input.npy"))
    shutil.rmtree(prepared.folder / PACKAGE, ignore_errors=True)
    network, package = prepared.network, prepared.folder / PACKAGE
    pcc.compile(
        network.module(),
        (image,),
        package,
        machine_profile="built-in",
        tuning_records="none",
        weight_dtype=network.weight_dtype,
    )


def _digest(module: nn.Module) -> str:
    """Changes when weights do, or a release: PyTorch's, whose exported programs the engines read, or that of an engine,
    which converts."""
    pins = [
        engine.environment.requirements + engine.environment.alone for engine in ENGINES.values() if engine.environment
    ]
    digest = hashlib.sha256(f"{torch.__version__} {pins}".encode())
    for name, value in module.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()
