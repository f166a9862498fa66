"""Files in the manner of other exporters, built by hand: TensorFlow's and Keras' (tf2onnx), Paddle's, scikit-learn's.
Transposes around layers cancel out."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import pcc
from pcc.frontend.imported import import_model
from pcc.ir.ops import CONV2D, ELEMENTWISE, PERMUTE
from pcc.passes.manager import PassManager
from pcc.passes.pipeline import parse_pipeline
from tests.frontend.onnx.models import run_onnxruntime, weight

NHWC, NCHW = [0, 2, 3, 1], [0, 3, 1, 2]

PASSES = "decompose,canonicalize,fold-constants,fold-batchnorm,drop-filters,fuse-epilogues"


class Style:
    """A model that grows node by node; constants become initializers under names of that style."""

    def __init__(self, opset: int, producer: str, name: str) -> None:
        self.opset, self.producer, self.name = opset, producer, name
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *operands: str | np.ndarray | None, outputs: int = 1, **attributes: Any) -> str:
        names = []
        for operand in operands:
            if isinstance(operand, np.ndarray):
                self.constants.append(
                    numpy_helper.from_array(operand, self.name.format(operator=operator, count=len(self.constants)))
                )
                operand = self.constants[-1].name
            names.append(operand or "")
        values = [
            f"{self.name.format(operator=operator, count=f'out{len(self.nodes)}')}:{place}" for place in range(outputs)
        ]
        self.nodes.append(
            helper.make_node(operator, names, values, name=f"{operator}__{len(self.nodes)}", **attributes)
        )
        return values[0]

    def model(self, input: str, shape: Sequence[int | str], *results: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "style",
            [helper.make_tensor_value_info(input, TensorProto.FLOAT, shape)],
            [onnx.ValueInfoProto(name=result) for result in results],
            self.constants,
        )
        for output in graph.output:
            output.type.tensor_type.elem_type = TensorProto.FLOAT
        return helper.make_model(
            graph, producer_name=self.producer, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8
        )


def axes(style: Style, operator: str, x: str, *places: int) -> str:
    """Squeeze, Unsqueeze: axes are an input from opset 13 on."""
    if style.opset >= 13:
        return style.add(operator, x, np.array(places, np.int64))
    return style.add(operator, x, axes=list(places))


def mean(style: Style, x: str, places: list[int], keep: int) -> str:
    if style.opset >= 18:
        return style.add("ReduceMean", x, np.array(places, np.int64), keepdims=keep)
    return style.add("ReduceMean", x, axes=places, keepdims=keep)


def padded(style: Style, x: str, amounts: list[int]) -> str:
    if style.opset >= 11:
        return style.add("Pad", x, np.array(amounts, np.int64), np.array(0, np.float32))
    return style.add("Pad", x, pads=amounts, value=0.0)


def clipped(style: Style, x: str) -> str:
    if style.opset >= 11:
        return style.add("Clip", x, np.array(0, np.float32), np.array(6, np.float32))
    return style.add("Clip", x, min=0.0, max=6.0)


def norm(style: Style, x: str, channels: int) -> str:
    values = [weight(channels, seed=seed) for seed in (1, 2, 3)]
    return style.add("BatchNormalization", x, *values, np.abs(weight(channels, seed=4)) + np.float32(0.5), epsilon=1e-3)


def channels_last(style: Style, x: str, operator: str, *operands: np.ndarray | None, **attributes: Any) -> str:
    """An operator on NCHW between two transposes, as each is written before anything is optimised."""
    inside = style.add(operator, style.add("Transpose", x, perm=NCHW), *operands, **attributes)
    return style.add("Transpose", inside, perm=NHWC)


def tensorflow(opset: int) -> onnx.ModelProto:
    """An inverted residual, a gate and a classifier in NHWC, every layer between transposes, biases added apart,
    padding explicit."""
    style = Style(opset, "tf2onnx", "StatefulPartitionedCall/model/block:1/{operator}/ReadVariableOp:{count}")
    x = padded(style, "serving_default_input:0", [0, 0, 0, 0, 0, 1, 1, 0])
    x = channels_last(style, x, "Conv", weight(8, 3, 3, 3), strides=[2, 2], auto_pad="VALID")
    x = clipped(style, style.add("Add", x, weight(1, 1, 1, 8)))
    y = channels_last(style, x, "Conv", weight(8, 1, 3, 3), group=8, auto_pad="SAME_UPPER", kernel_shape=[3, 3])
    y = style.add("Transpose", norm(style, style.add("Transpose", y, perm=NCHW), 8), perm=NHWC)
    gate = axes(style, "Unsqueeze", axes(style, "Unsqueeze", mean(style, y, [1, 2], 0), 1), 1)
    gate = style.add("Sigmoid", channels_last(style, gate, "Conv", weight(8, 8, 1, 1), weight(8)))
    y = style.add("Mul", clipped(style, y), gate)
    x = style.add("Add", x, y)
    x = style.add("Concat", x, channels_last(style, x, "MaxPool", kernel_shape=[3, 3], auto_pad="SAME_UPPER"), axis=3)
    x = axes(style, "Squeeze", axes(style, "Squeeze", mean(style, x, [1, 2], 1), 1), 1)
    scores = style.add("Softmax", style.add("Add", style.add("MatMul", x, weight(16, 5)), weight(5)), axis=-1)
    return style.model("serving_default_input:0", [1, 12, 13, 3], scores)


def keras_image(opset: int) -> onnx.ModelProto:
    """An image to an image in NHWC: a transposed convolution with what tf2onnx makes of ``same`` padding, upsampling,
    PReLU of channels."""
    style = Style(opset, "tf2onnx", "model/conv2d_{count}/{operator}:0")
    x = channels_last(style, "input_1:0", "Conv", weight(6, 3, 3, 3), weight(6), pads=[1, 1, 1, 1])
    x = style.add("PRelu", x, weight(1, 1, 6))
    x = channels_last(style, x, "ConvTranspose", weight(6, 4, 3, 3), strides=[2, 2], auto_pad="SAME_LOWER")
    x = style.add("LeakyRelu", style.add("Add", x, weight(4)), alpha=0.3)
    x = style.add("Tanh", channels_last(style, x, "Conv", weight(3, 4, 1, 1)))
    return style.model("input_1:0", [1, 7, 9, 3], x)


def paddle(opset: int) -> onnx.ModelProto:
    """Names with dots and numbers, shapes by Shape, Slice and Concat, hard sigmoid and swish in parts, a batch size
    that is open."""
    style = Style(opset, "PaddlePaddle", "p2o.{operator}.{count}")
    x = norm(
        style,
        style.add(
            "Conv",
            "x",
            weight(6, 3, 3, 3),
            dilations=[1, 1],
            group=1,
            kernel_shape=[3, 3],
            pads=[1, 1, 1, 1],
            strides=[2, 2],
        ),
        6,
    )
    x = style.add("Mul", x, style.add("HardSigmoid", x, alpha=1 / 6, beta=0.5))
    pooled = style.add("GlobalAveragePool", x)
    gate = style.add(
        "HardSigmoid", style.add("Conv", style.add("Relu", pooled), weight(6, 6, 1, 1), weight(6)), alpha=0.2, beta=0.5
    )
    x = style.add("Mul", x, gate)
    batch = (
        style.add("Slice", style.add("Shape", x), np.array([0]), np.array([1]), np.array([0]))
        if opset >= 10
        else style.add("Slice", style.add("Shape", x), starts=[0], ends=[1])
    )
    batch = style.add("Cast", style.add("Cast", batch, to=TensorProto.INT32), to=TensorProto.INT64)
    x = style.add("Reshape", x, style.add("Concat", batch, np.array([-1]), axis=0))
    x = style.add("Add", style.add("MatMul", x, weight(6 * 6 * 7, 4)), weight(4))
    return style.model("x", ["DynamicDimension.0", 3, 12, 13], x)


def sklearn(opset: int) -> onnx.ModelProto:
    """A scaler and a network of two layers: Sub, Div, MatMul, Add, and probabilities."""
    style = Style(opset, "skl2onnx", "{operator}{count}")
    x = style.add("Div", style.add("Sub", "X", weight(1, 6)), np.abs(weight(1, 6, seed=1)) + np.float32(0.1))
    x = style.add("Relu", style.add("Add", style.add("MatMul", x, weight(6, 8)), weight(1, 8)))
    x = style.add("Add", style.add("MatMul", x, weight(8, 3)), weight(1, 3))
    return style.model("X", ["N", 6], style.add("Softmax", x, axis=1), x)


MODELS = {
    "tensorflow": (tensorflow, (1, 12, 13, 3)),
    "keras": (keras_image, (1, 7, 9, 3)),
    "paddle": (paddle, (2, 3, 12, 13)),
    "sklearn": (sklearn, (4, 6)),
}


@pytest.mark.parametrize("opset", [9, 11, 13, 18, 22])
@pytest.mark.parametrize("name", MODELS)
def test_graph_agrees_with_onnxruntime(name: str, opset: int) -> None:
    make, shape = MODELS[name]
    model, x = make(opset), torch.randn(shape, generator=torch.Generator().manual_seed(0))
    graph_module = PassManager(parse_pipeline(PASSES))(import_model(model, (x,)).graph).graph_module
    for got, wanted in zip(graph_module(x), run_onnxruntime(model, (x,)), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "permutations"), [("tensorflow", 1), ("keras", 3)])
def test_transposes_around_layers_cancel_out(name: str, permutations: int) -> None:
    """What is left turns the image that comes in, and the one that goes out (and a transposed convolution interleaves
    its phases); biases, norms and activations are the convolutions'."""
    make, shape = MODELS[name]
    graph_module = PassManager(parse_pipeline(PASSES))(import_model(make(13), (torch.zeros(shape),)).graph).graph_module
    calls = Counter(node.target for node in graph_module.graph.nodes if node.op == "call_function")
    assert calls[PERMUTE] == permutations
    assert calls[ELEMENTWISE] <= 2
    assert calls[CONV2D] >= 3


@pytest.mark.parametrize("name", MODELS)
def test_library_agrees_with_onnxruntime(name: str, tmp_path: Path) -> None:
    make, shape = MODELS[name]
    model, x = make(13), torch.randn(shape, generator=torch.Generator().manual_seed(0))
    pcc.compile(model, (x,), tmp_path / "net", name="net")
    values = pcc.load(tmp_path / "net")(x.numpy())
    for got, wanted in zip(
        values if isinstance(values, tuple | list) else values.values() if isinstance(values, dict) else [values],
        run_onnxruntime(model, (x,)),
        strict=True,
    ):
        np.testing.assert_allclose(np.asarray(got), wanted, rtol=1e-4, atol=1e-5)
