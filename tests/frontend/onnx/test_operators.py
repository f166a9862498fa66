"""Rules of operators where versions, attributes and types change what they mean."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from pcc.errors import PccError
from pcc.frontend.imported import import_model
from pcc.frontend.supported import check_supported
from pcc.ir.verify import relative_error, run_graph
from pcc.passes.canonicalize import Canonicalize
from pcc.passes.decompose import Decompose
from pcc.passes.manager import PassManager
from tests.frontend.onnx.models import model, run_onnxruntime, weight


def refusal(proto: onnx.ModelProto) -> str:
    with pytest.raises(PccError) as caught:
        import_model(proto)
    return str(caught.value)


def test_resize_of_opset_10_rounds_up_where_it_makes_smaller() -> None:
    graph = "agraph (float[1,1,2,4] x) => (float[1,1,H,W] y) { y = Resize (x, scales) }"
    x = torch.arange(1.0, 9).reshape(1, 1, 2, 4)
    for scales, expected in (([1, 1, 0.6, 0.6], [1, 3]), ([1, 1, 1, 0.6], [1, 3, 5, 7]), ([1, 1, 0.6, 1.5], None)):
        proto = model(graph, {"scales": np.array(scales, np.float32)}, opset=10)
        (found,) = run_graph(import_model(proto).graph, (x,))
        assert expected is None or found.flatten().tolist() == expected
        assert torch.equal(found, run_onnxruntime(proto, (x,))[0])


POOLED = """
agraph (float[1,2,5,5] x) => (float[1,2,H,W] y) {
    p, at = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
    y = MaxUnpool <kernel_shape = [2, 2], strides = [2, 2]> (p, at SHAPE)
}
"""


def test_unpooling_lays_values_where_the_pooling_took_them() -> None:
    proto = model(POOLED.replace("SHAPE", ", shape"), {"shape": np.array([1, 2, 5, 5])})
    x = torch.randn(1, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    (found,) = run_graph(import_model(proto).graph, (x,))
    assert torch.equal(found, torch.where(found != 0, x, 0))
    assert int((found != 0).sum()) == 8
    assert torch.equal(found, run_onnxruntime(proto, (x,))[0])


def test_unpooling_into_another_shape_is_refused() -> None:
    assert "places in a tensor of [1, 2, 5, 5] for an output of [1, 2, 4, 4]" in refusal(
        model(POOLED.replace("SHAPE", ""))
    )
    graph = "agraph (float[1,1,1,1] x) => (float[1,1,2,2] y) { y = MaxUnpool <kernel_shape = [2, 2]> (x, at) }"
    assert "places outside of a tensor of [1, 1, 2, 2]" in refusal(model(graph, {"at": np.full((1, 1, 1, 1), 4)}))


NORM = """
agraph (float[2,3,4] x) => (float[2,3,4] y) { y, m, v, sm, sv = BatchNormalization (x, s, b, mean, var) }
"""


@pytest.mark.parametrize(("opset", "outputs", "training"), [(9, 5, True), (9, 1, False), (15, 3, False)])
def test_statistics_of_old_batch_norms_are_of_training(opset: int, outputs: int, training: bool) -> None:
    """Since opset 14 an attribute says it."""
    weights = {"s": weight(3), "b": weight(3), "mean": weight(3), "var": np.abs(weight(3)) + 1}
    proto = model(NORM, weights, opset)
    del proto.graph.node[0].output[outputs:]
    if training:
        assert "batch norm in training mode: export the model in evaluation mode" in refusal(proto)
    else:
        import_model(proto)


@pytest.mark.parametrize("operator", ["ReduceLogSum", "ReduceLogSumExp"])
def test_logarithms_of_sums_have_the_inputs_type(operator: str) -> None:
    graph = f"agraph (int32[2,3] x) => (int32[2,1] y) {{ y = {operator} <axes = [1]> (x) }}"
    (found,) = run_graph(import_model(model(graph)).graph, (torch.tensor([[1, 2, 9], [4, 5, 6]], dtype=torch.int32),))
    assert found.dtype == torch.int32
    assert found.flatten().tolist() == ([2, 2] if operator == "ReduceLogSum" else [9, 6])


@pytest.mark.parametrize(("opset", "kind"), [(9, torch.float32), (10, torch.bool)])
def test_masks_of_dropout(opset: int, kind: torch.dtype) -> None:
    proto = model("agraph (float[2] x) => (float[2] y, float[2] m) { y, m = Dropout (x) }", opset=opset)
    assert run_graph(import_model(proto).graph, (torch.ones(2),))[1].dtype == kind


@pytest.mark.parametrize("corners", ["", "<align_corners = 1>"])
@pytest.mark.parametrize("batch", [1, 2])
def test_grids_of_affine_maps(batch: int, corners: str) -> None:
    graph = f"""
    agraph (float[{batch},2,3] theta, float[{batch},1,4,5] x) => (float[{batch},1,3,6] y) {{
        grid = AffineGrid {corners} (theta, size)
        y = GridSample (x, grid)
    }}"""
    proto = model(graph, {"size": np.array([batch, 1, 3, 6])}, opset=20)
    inputs = (torch.randn(batch, 2, 3), torch.randn(batch, 1, 4, 5))
    imported = import_model(proto)
    assert relative_error(run_graph(imported.graph, inputs), run_onnxruntime(proto, inputs)) < 1e-5
    check_supported(PassManager([Decompose(), Canonicalize()])(imported.graph).graph_module)


@pytest.mark.parametrize("names", [("activation_alpha", "activations"), ("activation_beta",)])
def test_lists_that_are_empty_say_nothing(names: tuple[str, ...]) -> None:
    graph = "agraph (float[4,1,3] x) => (float[4,1,1,2] y) { y = LSTM <hidden_size = 2> (x, w, r) }"
    proto = model(graph, {"w": weight(1, 8, 3), "r": weight(1, 8, 2)})
    x = (torch.randn(4, 1, 3),)
    expected = run_onnxruntime(proto, x)
    for name in names:
        kind = onnx.AttributeProto.STRINGS if name == "activations" else onnx.AttributeProto.FLOATS
        proto.graph.node[0].attribute.append(onnx.AttributeProto(name=name, type=kind))
    assert relative_error(run_graph(import_model(proto).graph, x), expected) < 1e-6


@pytest.mark.parametrize(("axis", "block", "scales"), [(0, 2, (3, 3)), (1, 2, (5, 2)), (-1, 3, (5, 1))])
def test_blocks_of_weights_with_scales_of_their_own(axis: int, block: int, scales: tuple[int, ...]) -> None:
    attributes = f"axis = {axis}, block_size = {block}"
    graph = (
        f"agraph (float[5,3] x) => (float[5,3] y) {{ w = DequantizeLinear <{attributes}> (q, s, z) y = Add (x, w) }}"
    )
    zero = np.arange(np.prod(scales), dtype=np.int8).reshape(scales)
    weights = {"q": np.arange(15, dtype=np.int8).reshape(5, 3), "s": np.abs(weight(*scales)), "z": zero}
    proto, x = model(graph, weights, opset=21), torch.randn(5, 3)
    assert relative_error(run_graph(import_model(proto).graph, (x,)), run_onnxruntime(proto, (x,))) < 1e-6
    proto = model(graph, weights | {"s": weights["s"][:1, :1], "z": zero[:1, :1]}, opset=21)
    assert f"scales of (1, 1) for blocks of {block} of (5, 3) along axis {axis}" in refusal(proto)


@pytest.mark.parametrize(
    ("call", "opset"),
    [
        ("Unsqueeze (x, twice)", 13),
        ("Squeeze (x, twice)", 13),
        ("ReduceSum (x, twice)", 13),
        ("ReduceMean <axes = [0, -2]> (x)", 13),
        ("Slice (x, twice, ends, twice)", 13),
        ("Pad (x, pads, , twice)", 18),
    ],
)
def test_an_axis_that_is_named_twice(call: str, opset: int) -> None:
    constants: Mapping[str, Any] = {"twice": np.array([0, 0]), "ends": np.array([1, 1]), "pads": np.array([1, 1, 1, 1])}
    used = {name: value for name, value in constants.items() if name in call}
    assert "the axes [0, 0], of which one comes twice" in refusal(
        model(f"agraph (float[1,2] x) => (float[?] y) {{ y = {call} }}", used, opset)
    )


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (helper.make_node("Conv", ["x"], ["y"]), "its input 1 (weight) is missing"),
        (helper.make_node("Conv", ["x", "", "x"], ["y"]), "its input 1 (weight) is missing"),
        (helper.make_node("Concat", [], ["y"], axis=0), "its input 0 (values) is missing"),
        (helper.make_node("Concat", ["x", "", "x"], ["y"], axis=0), "its input 1 (values) is missing"),
        (helper.make_node("Relu", [], ["y"]), "its input 0 (x) is missing"),
        (helper.make_node("If", [], ["y"]), "its input 0 is missing"),
        (helper.make_node("Loop", ["x"], ["y"]), "its input 1 is missing"),
    ],
)
def test_inputs_that_are_missing(node: onnx.NodeProto, words: str) -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], "net", [value("x", TensorProto.FLOAT, [1, 1, 2, 2])], [value("y", TensorProto.FLOAT, None)]
    )
    assert f": {words})" in refusal(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
