"""Names in ONNX files, and engines' times by them."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from tools.bench_peers.onnx_file import attribute, export_onnx


class Block(nn.Module):
    """A residual block with a projection, as ResNet's."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.project = nn.Conv2d(3, 4, 1)
        self.last = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.second(self.first(x)) + self.project(x)).mean((2, 3)))


def test_layers_have_their_modules_names(tmp_path: Path) -> None:
    module, image = Block().eval(), torch.randn(1, 3, 5, 5)
    export_onnx(module, image, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    named = {node.name: node.output[0] for node in model.graph.node}
    assert named["first.0"] == "first.0/Conv"
    assert named["second"] == "second/Conv"
    assert [node.output[0] for node in model.graph.node if node.op_type in ("Relu", "Add")] == [
        "first.0/Relu",
        "second+project/Add",
        "second+project/Relu",
    ]
    (output,) = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"]).run(
        None, {"input": image.numpy()}
    )
    assert np.allclose(np.asarray(output), module(image).detach().numpy(), atol=1e-5)


class Sums(nn.Module):
    """Two additions behind one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.layer(x) + x + 2 * x)


def test_no_name_twice(tmp_path: Path) -> None:
    export_onnx(Sums().eval(), torch.randn(1, 3, 5, 5), tmp_path / "model.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "model.onnx"), full_check=True)


def test_times_go_to_layers() -> None:
    times = {
        "a/WithoutBiases": 1.0,
        "b/Relu_nchwc": 2.0,
        "b": 0.5,
        "c+d/Relu_nchwc": 3.0,
        "d/Conv_nchwc": 4.0,
        "ReorderInput": 9.0,
    }
    assert attribute(times, ["a", "b", "c", "d"]) == {"a": 1.0, "b": 2.5, "c": 3.0, "d": 4.0}
    assert attribute({"c+d/Relu": 3.0}, ["c", "d"]) == {}  # either
