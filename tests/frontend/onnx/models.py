"""ONNX models for tests: written as text, and exported from PyTorch."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper, parser
from torch import Tensor, nn

HEADER = '<ir_version: 8, opset_import: ["" : {opset}]>'


def model(graph: str, weights: Mapping[str, np.ndarray] | None = None, opset: int = 17) -> onnx.ModelProto:
    """A model in ONNX's text form, with initializers as arrays."""
    proto = parser.parse_model(HEADER.format(opset=opset) + graph)
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in (weights or {}).items())
    return proto


def export(module: nn.Module, inputs: tuple[Tensor, ...], path: Path, *, dynamo: bool, opset: int) -> Path:
    """By one of PyTorch's two exporters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"external_data": False, "verbose": False} if dynamo else {}
        torch.onnx.export(module, inputs, str(path), dynamo=dynamo, opset_version=opset, **options)  # type: ignore[arg-type]
    return path


def run_onnxruntime(source: Path | onnx.ModelProto, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    content = str(source) if isinstance(source, Path) else source.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    feeds = {taken.name: x.numpy() for taken, x in zip(session.get_inputs(), inputs, strict=True)}
    return tuple(torch.from_numpy(np.asarray(value)) for value in session.run(None, feeds))


def weight(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
