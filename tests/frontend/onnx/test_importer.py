"""ONNX models become the graphs that their modules become: the same numbers, the file's names, shapes that are
known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pcc.errors import PccError
from pcc.frontend.imported import import_model
from pcc.frontend.supported import check_supported
from pcc.ir.graph import OUTPUT_NAMES, layer_name
from pcc.ir.verify import relative_error, run_graph
from pcc.passes.canonicalize import Canonicalize
from pcc.passes.decompose import Decompose
from pcc.passes.manager import PassManager
from tests.frontend.onnx.models import export, model, run_onnxruntime, weight
from tests.nets import NETS, make

# Before opset 11 there are no half-pixel coordinates: what PyTorch writes for the decoder is another model.
EXPORTS = [
    (name, dynamo, opset)
    for name in NETS
    for dynamo, opset in ((False, 9), (False, 13), (False, 17), (True, 18), (True, 21))
    if (name, opset) != ("decoder", 9)
]


@pytest.mark.parametrize(("name", "dynamo", "opset"), EXPORTS)
def test_what_pytorch_exports(name: str, dynamo: bool, opset: int, tmp_path: Path) -> None:
    net, inputs = make(name)
    imported = import_model(export(net, inputs, tmp_path / "net.onnx", dynamo=dynamo, opset=opset))
    result = net(*inputs)
    expected = tuple(result.values()) if isinstance(result, dict) else (result,)
    of_file = run_onnxruntime(tmp_path / "net.onnx", inputs)
    assert relative_error(run_graph(imported.graph, inputs), expected) < 1e-5
    assert relative_error(run_graph(imported.graph, inputs), of_file) < 1e-5
    canonical = PassManager([Decompose(), Canonicalize()])(imported.graph).graph_module
    check_supported(canonical)
    assert relative_error(run_graph(canonical, inputs), expected) < 1e-5


@pytest.mark.parametrize("dynamo", [False, True])
def test_layers_have_the_modules_names(dynamo: bool, tmp_path: Path) -> None:
    net, inputs = make("residual")
    imported = import_model(export(net, inputs, tmp_path / "net.onnx", dynamo=dynamo, opset=18))
    convolutions = [layer_name(node) for node in imported.graph.graph.nodes if "conv2d" in str(node.target)]
    assert sorted(convolutions) == ["first.0", "second.0.0", "second.1", "shortcut", "stem.0"]
    assert "fc.weight" in dict(imported.graph.named_buffers())
    assert set(convolutions) < set(imported.layers)
    assert imported.origin.startswith("net.onnx (ONNX, opset 18, by pytorch")


def test_shape_arithmetic_never_reaches_the_graph() -> None:
    """As exporters write ``x.view(x.shape[0], -1, 2)`` and a resize to twice the size."""
    graph = """
    agraph (float[2,4,3,5] x) => (float[2,30,2] y, float[2,4,6,10] z) {
        shape = Shape (x)
        zero = Constant <value: tensor = int64 {0}> ()
        batch = Gather <axis = 0> (shape, zero)
        first = Unsqueeze (batch, axis)
        rest = Constant <value: tensor = int64[2] {-1, 2}> ()
        wanted = Concat <axis = 0> (first, rest)
        y = Reshape (x, wanted)
        from = Constant <value: tensor = int64[1] {2}> ()
        to = Constant <value: tensor = int64[1] {4}> ()
        image = Slice (shape, from, to)
        two = Constant <value: tensor = int64[1] {2}> ()
        double = Mul (image, two)
        floats = Cast <to = 1> (double)
        whole = Floor (floats)
        again = Cast <to = 7> (whole)
        front = Slice (shape, axis, from)
        sizes = Concat <axis = 0> (front, again)
        z = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">
            (x, , , sizes)
    }
    """
    proto = model(graph, {"axis": np.array([0], np.int64)})
    x = torch.randn(2, 4, 3, 5)
    imported = import_model(proto)
    assert [str(node.target) for node in imported.graph.graph.nodes if node.op == "call_function"] == [
        "aten.reshape.default",
        "aten.upsample_nearest2d.default",
    ]
    assert relative_error(run_graph(imported.graph, (x,)), run_onnxruntime(proto, (x,))) == 0
    assert imported.outputs == ("y", "z")


def test_a_network_as_tensorflow_has_it() -> None:
    """NHWC outside, a Transpose to NCHW and back around each layer, SAME padding, a batch norm, a depthwise layer,
    sizes that are open."""
    graph = """
    agraph (float[N,H,W,3] image) => (float[N,4] scores) {
        nchw = Transpose <perm = [0, 3, 1, 2]> (image)
        net_conv = Conv <auto_pad = "SAME_UPPER", strides = [2, 2], kernel_shape = [3, 3]> (nchw, net_conv_kernel)
        normed = BatchNormalization <epsilon = 0.001> (net_conv, gamma, beta, mean, var)
        clipped = Clip (normed, zero, six)
        nhwc = Transpose <perm = [0, 2, 3, 1]> (clipped)
        padded = Pad (nhwc, amounts)
        back = Transpose <perm = [0, 3, 1, 2]> (padded)
        deep = Conv <group = 8, strides = [2, 2]> (back, depthwise)
        pooled = AveragePool <auto_pad = "SAME_UPPER", kernel_shape = [3, 3], strides = [2, 2]> (deep)
        means = ReduceMean <axes = [2, 3], keepdims = 0> (pooled)
        product = MatMul (means, dense)
        biased = Add (product, bias)
        scores = Softmax (biased)
    }
    """
    weights = {
        "net_conv_kernel": weight(8, 3, 3, 3),
        "gamma": weight(8),
        "beta": weight(8, seed=1),
        "mean": weight(8, seed=2),
        "var": np.abs(weight(8, seed=3)) + 0.5,
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
        "amounts": np.array([0, 0, 0, 0, 0, 1, 1, 0], np.int64),
        "depthwise": weight(8, 1, 3, 3, seed=4),
        "dense": weight(8, 4, seed=5),
        "bias": weight(4, seed=6),
    }
    proto = model(graph, weights)
    with pytest.raises(
        PccError, match=r"leaves sizes of its inputs open: image \(N, H, W, 3\); give --input-shape image=1,224,224,3"
    ):
        import_model(proto)
    x = torch.randn(2, 17, 22, 3)
    imported = import_model(proto, {"image": x})
    canonical = PassManager([Decompose(), Canonicalize()])(imported.graph).graph_module
    check_supported(canonical)
    assert relative_error(run_graph(canonical, (x,)), run_onnxruntime(proto, (x,))) < 1e-6
    assert canonical.meta[OUTPUT_NAMES] == ("scores",)


def test_a_branch_whose_condition_is_known_is_taken() -> None:
    graph = """
    agraph (float[1,3] x) => (float[3] y) {
        shape = Shape (x)
        zero = Constant <value: tensor = int64 {0}> ()
        one = Constant <value: tensor = int64 {1}> ()
        first = Gather (shape, zero)
        is_one = Equal (first, one)
        y = If (is_one) <
            then_branch = squeezed () => (float[3] a) { a = Squeeze (x) },
            else_branch = kept () => (float[1,3] b) { b = Identity (x) }
        >
    }
    """
    x = torch.randn(1, 3)
    assert torch.equal(run_graph(import_model(model(graph)).graph, (x,))[0], x[0])


def test_functions_and_weights_that_are_shared() -> None:
    graph = """
    agraph (float[1,4,5,5] x) => (float[1,4,5,5] y) {
        a = local.twice (x)
        b = Conv (a, head.weight)
        y = Conv (b, head.weight)
    }
    <opset_import: ["" : 17], domain: "local"> twice (v) => (w) { w = Add (v, v) }
    """
    proto = model(graph.replace("head.weight", "head_weight"), {"head_weight": weight(4, 4, 1, 1)})
    proto.opset_import.add(domain="local", version=1)
    for node in proto.graph.node:
        node.input[:] = [name.replace("head_weight", "head.weight") for name in node.input]
    proto.graph.initializer[0].name = "head.weight"
    x = torch.randn(1, 4, 5, 5)
    imported = import_model(proto)
    assert relative_error(run_graph(imported.graph, (x,)), run_onnxruntime(proto, (x,))) < 1e-6
    assert [layer_name(node) for node in imported.graph.graph.nodes if "conv2d" in str(node.target)] == [
        "head",
        "head_2",
    ]
    assert [name for name, _ in imported.graph.named_buffers()] == ["head.weight"]


def test_names_that_python_does_not_take() -> None:
    """Weights called as modules are, or as attributes that each module has; inputs and outputs with colons."""
    graph = "agraph (float[2] a) => (float[2] b) { c = Add (a, w)  d = Mul (c, v)  e = Sub (d, u)  b = Add (e, t) }"
    proto = model(graph, {name: weight(2, seed=place) for place, name in enumerate("wvut")})
    renamed = {"a": "serving:0", "w": "block", "v": "block.weight", "u": "forward", "t": "a/b::c d", "b": "out:1"}
    for values in (proto.graph.input, proto.graph.output, proto.graph.initializer):
        for value in values:
            value.name = renamed[value.name]
    for node in proto.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    x = torch.randn(2)
    imported = import_model(proto)
    assert relative_error(run_graph(imported.graph, (x,)), run_onnxruntime(proto, (x,))) == 0
    assert (imported.inputs[0].name, imported.outputs) == ("serving:0", ("out_1",))


def test_weights_stored_as_integers_are_weights() -> None:
    """DequantizeLinear of a constant: what weight-only quantisation writes."""
    graph = (
        "agraph (float[1,2,3,3] x) => (float[1,3,3,3] y) { w = DequantizeLinear <axis = 0> (q, s, z)  y = Conv (x, w) }"
    )
    quantised = np.arange(-3, 3, dtype=np.int8).reshape(3, 2, 1, 1)
    proto = model(graph, {"q": quantised, "s": np.abs(weight(3)), "z": np.array([0, 1, -1], np.int8)})
    x = torch.randn(1, 2, 3, 3)
    assert relative_error(run_graph(import_model(proto).graph, (x,)), run_onnxruntime(proto, (x,))) < 1e-6


@pytest.mark.parametrize(
    ("examples", "words"),
    [
        (None, r"open: a \(n, 3\); b \(n, \?\); give --input-shape a=1,3"),
        ({"a": torch.ones(2, 3)}, r"open: b \(n, \?\)"),
        ({"c": torch.ones(2, 3)}, "has no input 'c': it has a, b"),
        ((torch.ones(2, 3),), r"has 2 inputs \(a, b\), not 1"),
        ((torch.ones(2, 4), torch.ones(2, 1)), r"takes a \(n, 3\): 2,4 does not fit"),
        ((torch.ones(2, 3).double(), torch.ones(2, 1)), "takes a as float32, not float64"),
        ((torch.ones(0, 3), torch.ones(2, 1)), "input a is empty: 0x3"),
    ],
)
def test_shapes_that_are_open_or_do_not_fit(examples: object, words: str) -> None:
    with pytest.raises(PccError, match=words):
        import_model(model("agraph (float[n,3] a, float[n,?] b) => (float[n,3] y) { y = Add (a, b) }"), examples)


def test_modules_and_functions_come_in_the_same_way() -> None:
    net, inputs = make("residual")
    traced = torch.fx.symbolic_trace(net)
    assert isinstance(traced, torch.fx.GraphModule)
    for form in (net, traced, torch.export.export(net, inputs), lambda image: net(image)):
        imported = import_model(form, inputs)
        assert relative_error(run_graph(imported.graph, inputs), (net(*inputs),)) < 1e-6
        assert [(taken.name, taken.shape) for taken in imported.inputs] == [("image", (2, 3, 13, 10))]
        assert imported.outputs == ("output",)
    with pytest.raises(PccError, match="give example inputs"):
        import_model(nn.ReLU())
    with pytest.raises(PccError, match=r"pcc reads .onnx \(an ONNX file\) and .pt2"):
        import_model("net.tflite")


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers(kind: Any, bidirectional: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = kind(5, 7, bidirectional=bidirectional, batch_first=True).eval(), torch.randn(2, 6, 5)  # type: ignore[reportCallIssue]
    path = export(net, (x,), tmp_path / "net.onnx", dynamo=False, opset=17)
    results = run_graph(import_model(path).graph, (x,))
    assert relative_error(results, run_onnxruntime(path, (x,))) < 1e-5
    assert relative_error(results[:1], net(x)[:1]) < 1e-5


FLOORED = 'coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"'


@pytest.mark.parametrize(
    ("graph", "opset"),
    [
        ('agraph (float[1,2,3,4] x) => (float[1,2,6,12] y) { y = Upsample <mode = "nearest"> (x, scales) }', 9),
        ('agraph (float[1,2,3,4] x) => (float[1,2,6,12] y) { y = Resize <mode = "linear"> (x, scales) }', 10),
        # A region counts for tf_crop_and_resize only. Places of nearest elements, and sizes, are computed in fp32.
        ("agraph (float[1,2,3,4] x) => (float[1,2,6,12] y) { y = Resize (x, region, scales) }", 13),
        ("agraph (float[1,2,3,4] x) => (float[1,2,H,W] y) { y = Resize <FLOORED> (x, , part) }", 13),
        ("agraph (float[1,2,3,4] x) => (float[1,2,H,W] y) { y = Resize <FLOORED> (x, , , sizes) }", 13),
        (
            "agraph (float[1,2,3,4] x) => (float[1,2,H,W] y) { w = Concat <axis = 3> (x, x, x, x, x)"
            "  y = Resize <FLOORED> (w, , part) }",
            13,
        ),
        ('agraph (float[1,2,3,4] x) => (float[1,2,3,W] y) { y = Pad <mode = "wrap"> (x, crop) }', 19),
        ("agraph (float[1,2,3,4] x) => (float[1,2,3,1] y) { y = Slice (x, before, least, last, back) }", 13),
        ("agraph (float[1,2,3,4] x) => (float[1,2,1,1] y) { y = GlobalLpPool <p = 3> (x) }", 13),
        (
            "agraph (float[1,2,3,4] x) => (float[1,2,3,4] y) { z = Less (x, zero)  n = Not (z)  y = Where (n, x, zero) "
            "}",
            13,
        ),
    ],
)
def test_operators_that_onnx_has_no_tests_of(graph: str, opset: int) -> None:
    constants = {
        "scales": np.array([1, 1, 2, 3], np.float32),
        "part": np.array([1, 1, 1, 0.7], np.float32),
        "region": np.zeros(8, np.float32),
        "sizes": np.array([1, 2, 27, 18]),
        "crop": np.array([0, 0, 0, -2, 0, 0, 0, 3]),
        "before": np.array([-10]),
        "least": np.array([-100]),
        "last": np.array([3]),
        "back": np.array([-1]),
        "zero": np.array(0, np.float32),
    }
    graph = graph.replace("FLOORED", FLOORED)
    proto = model(graph, {name: value for name, value in constants.items() if name in graph}, opset=opset)
    x = torch.randn(1, 2, 3, 4)
    assert relative_error(run_graph(import_model(proto).graph, (x,)), run_onnxruntime(proto, (x,))) < 1e-6


def test_inputs_have_the_files_types() -> None:
    """A shape alone has the type that the file says; another type is refused."""
    graph = (
        "agraph (int64[N,3] ids, bool[N,3] mask) => (float[N,3,4] y) { e = Gather (table, ids) m = Unsqueeze (mask, "
        "last) y = Where (m, e, zero) }"
    )
    proto = model(graph, {"table": weight(5, 4), "last": np.array([2], np.int64), "zero": np.zeros((), np.float32)})
    imported = import_model(proto, {name: torch.empty(2, 3, device="meta") for name in ("ids", "mask")})
    assert [(taken.name, taken.shape, taken.dtype) for taken in imported.inputs] == [
        ("ids", (2, 3), torch.int64),
        ("mask", (2, 3), torch.bool),
    ]
    inputs = (torch.tensor([[0, 4, -1], [3, 2, 1]]), torch.tensor([[True, False, True]] * 2))
    expected = run_onnxruntime(proto, inputs)
    canonical = PassManager([Decompose(), Canonicalize()])(imported.graph).graph_module
    check_supported(canonical)
    assert relative_error(run_graph(canonical, inputs), expected) == 0
    with pytest.raises(PccError, match="takes ids as int64, not float32"):
        import_model(proto, {"ids": torch.zeros(2, 3), "mask": inputs[1]})


def test_a_loop_of_known_length_is_written_out() -> None:
    """A length that depends on the input is refused."""
    graph = """
    agraph (float[1,3] x, int64 open) => (float[1,3] last, float[COUNT,1,3] all) {
        count = Constant <value = int64 {3}> ()
        last, all = Loop (LENGTH, , x) <
            body = step (int64 i, bool go, float[1,3] state) => (bool on, float[1,3] next, float[1,3] out)
            <float[3,3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}> {
                on = Identity (go)
                product = MatMul (state, w)
                next = Sigmoid (product)
                out = Neg (next)
            }>
    }
    """
    proto = model(graph.replace("LENGTH", "count").replace("COUNT", "3"))
    x = (torch.randn(1, 3), torch.tensor(3))
    imported = import_model(proto)
    assert relative_error(run_graph(imported.graph, x), run_onnxruntime(proto, x)) < 1e-6
    with pytest.raises(PccError, match=r"Loop .*its number of steps is computed from the model's input"):
        import_model(model(graph.replace("LENGTH", "open").replace("COUNT", "N")))


def test_a_loop_without_a_condition_does_not_ask_its_body() -> None:
    proto = model("""
    agraph (float[2] x) => (float[2] y) {
        count = Constant <value = int64 {3}> ()
        y = Loop (count, , x) <
            body = step (int64 i, bool go, float[2] state) => (bool on, float[2] next) {
                total = ReduceSum <keepdims = 0> (state)
                on = Less (total, total)
                next = Add (state, state)
            }>
    }
    """)
    (found,) = run_graph(import_model(proto).graph, (torch.ones(2),))
    assert found.tolist() == [8, 8]


def test_boxes_that_stay_come_first_and_are_counted() -> None:
    graph = """
    agraph (float[1,6,4] boxes, float[1,2,6] scores) => (int64[N,3] chosen) {
        most = Constant <value = int64 {4}> ()
        iou = Constant <value = float {0.5}> ()
        least = Constant <value = float {0.4}> ()
        chosen = NonMaxSuppression (boxes, scores, most, iou, least)
    }
    """
    proto = model(graph)
    generator = torch.Generator().manual_seed(3)
    inputs = (torch.rand(1, 6, 4, generator=generator), torch.rand(1, 2, 6, generator=generator))
    imported = import_model(proto)
    (expected,) = run_onnxruntime(proto, inputs)
    chosen, count = run_graph(imported.graph, inputs)
    assert 0 < len(expected) < 8
    assert (imported.outputs[0], int(count)) == ("chosen", len(expected))
    assert torch.equal(chosen[: len(expected)], expected)
    assert (chosen[len(expected) :] == -1).all()


def test_windows_that_begin_in_the_padding_behind_have_no_place() -> None:
    """With ``ceil_mode`` the last window is left out where it would see padding alone, as ONNX Runtime does."""
    graph = """
    agraph (float[1,2,5,2] x) => (float[1,2,A,B] y, int64[1,2,A,B] at) {
        y, at = MaxPool <ceil_mode = 1, kernel_shape = [2, 2], pads = [0, 0, 0, 1], strides = [3, 2]> (x)
    }
    """
    x = torch.randn(1, 2, 5, 2)
    y, at = run_graph(import_model(model(graph)).graph, (x,))
    assert y.shape == at.shape == (1, 2, 2, 1)
    assert torch.equal(x.flatten()[at], y)
    assert torch.equal(y, torch.stack([x[:, :, :2].amax((2, 3)), x[:, :, 3:].amax((2, 3))], dim=2)[..., None])


def test_an_operator_without_a_rule_is_imported_by_its_function_where_weights_are_initializers() -> None:
    places = {"cos": weight(6, 4), "sin": weight(6, 4, seed=1), "at": np.array([[3, 0, 5]])}
    graph = "agraph (float[1,2,3,8] x) => (float[1,2,3,8] y) { a = Relu(x) y = RotaryEmbedding(a, cos, sin, at) }"
    proto, x = model(graph, places, opset=23), torch.randn(1, 2, 3, 8)
    assert relative_error(run_graph(import_model(proto).graph, (x,)), run_onnxruntime(proto, (x,))) < 1e-6


def test_functions_that_hold_functions_are_written_out_whole() -> None:
    """The function of SoftmaxCrossEntropyLoss has a NegativeLogLikelihoodLoss."""
    graph = "agraph (float[3,5] x) => (float y) { a = Relu(x) y = SoftmaxCrossEntropyLoss(a, labels) }"
    proto, x = model(graph, {"labels": np.array([1, 4, 0])}), torch.randn(3, 5)
    assert relative_error(run_graph(import_model(proto).graph, (x,)), run_onnxruntime(proto, (x,))) < 1e-6


@pytest.mark.parametrize("pad", ["SAME_UPPER", "SAME_LOWER"])
def test_transposed_convolutions_that_leave_places_out(pad: str) -> None:
    """They have the bias alone there; what is missing to the size that ONNX says comes last, where ONNX Runtime stops
    before."""
    proto = model(
        f'net (float[1,1,3] x) => (float[1,1,N] y) {{ y = ConvTranspose<auto_pad="{pad}", strides=[2]>(x, w, b) }}',
        {"w": np.full((1, 1, 1), 10, np.float32), "b": np.array([5], np.float32)},
    )
    x = torch.tensor([[[1.0, 2.0, 3.0]]])
    (found,) = run_graph(import_model(proto).graph, (x,))
    assert found.flatten().tolist() == [15, 5, 25, 5, 35, 5]
    assert run_onnxruntime(proto, (x,))[0].flatten().tolist() == [15, 5, 25, 5, 35]
