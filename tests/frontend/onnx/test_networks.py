"""Networks of the zoo as ONNX files: pcc's library, ONNX Runtime and PyTorch agree, dense, pruned and after filters are dropped."""

from pathlib import Path

import numpy as np
import pytest
import torch

import pcc
from pcc.exporter import export_model
from pcc.models import create, entry
from pcc.models.registry import names
from tests.frontend.onnx.models import export, run_onnxruntime

pytestmark = pytest.mark.slow


def compiled(path: Path, x: torch.Tensor, folder: Path, prune: str | None = None) -> np.ndarray:
    pcc.compile(path, None, folder, prune=prune, name="net")
    return np.asarray(pcc.load(folder)(x.numpy()))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


@pytest.mark.parametrize(("dynamo", "opset"), [(False, 11), (True, 18)])
@pytest.mark.parametrize("name", [name for name in names() if name not in ("vgg16", "vgg16_bn", "vgg8-pruned")])
def test_dense(name: str, dynamo: bool, opset: int, tmp_path: Path) -> None:
    module, x = create(name, None), torch.randn(entry(name).input_shape, generator=torch.Generator().manual_seed(0))
    path = export(module, (x,), tmp_path / "net.onnx", dynamo=dynamo, opset=opset)
    made = compiled(path, x, tmp_path / "package")
    with torch.no_grad():
        assert difference(made, module(x).numpy()) < 1e-4
    assert difference(made, run_onnxruntime(path, (x,))[0].numpy()) < 1e-4


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2", "resnet18"])
def test_pruned_by_another_and_exported(name: str, tmp_path: Path) -> None:
    """A network pruned and exported by pcc is a file as any other: compiled from there, it is what ONNX Runtime computes."""
    module, x = create(name, None), torch.randn(entry(name).input_shape, generator=torch.Generator().manual_seed(0))
    text = "decompose,canonicalize,fold-constants,fold-batchnorm,prune-connectivity{rate=2},drop-filters"
    export_model(module, x, out=tmp_path / "pruned.onnx", pipeline=text)
    expected = run_onnxruntime(tmp_path / "pruned.onnx", (x,))[0].numpy()
    assert difference(compiled(tmp_path / "pruned.onnx", x, tmp_path / "package"), expected) < 1e-4
