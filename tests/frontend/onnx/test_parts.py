"""What a file has besides the nodes that its outputs need: nodes and weights that nobody reads, functions, parts of
the model, sparse weights."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from pcc.errors import PccError
from pcc.frontend.imported import import_model
from pcc.ir.graph import layer_name
from pcc.ir.verify import relative_error, run_graph
from tests.frontend.onnx.models import model, run_onnxruntime, weight


def refusal(proto: onnx.ModelProto) -> str:
    with pytest.raises(PccError) as caught:
        import_model(proto)
    return str(caught.value)


def with_function(body: str, calls: str, opset: int = 17, model_opset: int = 17) -> onnx.ModelProto:
    text = f"""
    agraph (float[2,4] x) => (float[?] y) {{ {calls} }}
    <opset_import: ["" : {opset}], domain: "local"> part (v) => (w) {{ {body} }}
    """
    proto = model(text, opset=model_opset)
    proto.opset_import.add(domain="local", version=1)
    return proto


# ---- what nobody reads ----


@pytest.mark.parametrize(
    "dead",
    [
        "u = Unique (x)",
        "s = Constant <value_float = 1.0> () q = QuantizeLinear (x, s)",
        'u = Constant <value_string = "text"> ()',
        "u = Unique (x) v = Relu (u)",
        "c = Constant <value = bool {1}> () u = Unique (x) v = If (c) <then_branch = t () => (float[2,4] a)"
        " { a = Relu (u) }, else_branch = e () => (float[2,4] b) { b = Identity (u) }>",
    ],
)
def test_nodes_that_nobody_reads(dead: str) -> None:
    x = torch.randn(2, 4)
    inside = f"""
        c = Constant <value = bool {{1}}> ()
        y = If (c) <then_branch = yes () => (float[2,4] p) {{ {dead.replace("c =", "cc =").replace("(c)", "(cc)")}
        p = Relu (x) }}, else_branch = no () => (float[2,4] r) {{ r = Identity (x) }}>
    """
    for proto in (
        model(f"agraph (float[2,4] x) => (float[2,4] y) {{ {dead} y = Relu (x) }}"),
        model(f"agraph (float[2,4] x) => (float[2,4] y) {{ {inside} }}"),
        with_function(f"{dead.replace('x', 'v').replace('v = ', 'vv = ')} w = Relu (v)", "y = local.part (x)"),
    ):
        assert torch.equal(run_graph(import_model(proto).graph, (x,))[0], x.relu())


def test_weights_that_nobody_reads() -> None:
    proto = model("agraph (float[2] x) => (float[2] y) { y = Relu (x) }")
    proto.graph.initializer.append(numpy_helper.from_array(np.array(["text"], object), "text"))
    proto.graph.initializer.append(helper.make_tensor("large", TensorProto.UINT64, [1], [1]))
    x = torch.randn(2)
    assert torch.equal(run_graph(import_model(proto).graph, (x,))[0], x.relu())
    proto.graph.node[0].CopyFrom(helper.make_node("Add", ["x", "large"], ["y"]))
    assert "'large' has elements of type UINT64" in refusal(proto)


def test_weights_that_are_outputs() -> None:
    proto = model("agraph (float[2] x) => (float[2] y, float[2] w) { y = Relu (x) }", {"w": weight(2)})
    assert torch.equal(run_graph(import_model(proto).graph, (torch.ones(2),))[1], torch.from_numpy(weight(2)))


# ---- operators that ONNX defines by others ----

ROTARY = "RotaryEmbedding (a, cos, sin, at)"


def test_an_operator_without_a_rule_in_a_part_and_in_a_function() -> None:
    tables = {"cos": weight(6, 4), "sin": weight(6, 4, seed=1), "at": np.array([[3, 0, 5]])}
    plain = f"agraph (float[1,2,3,8] x) => (float[1,2,3,8] y) {{ a = Relu (x) y = {ROTARY} }}"
    part = f"""
    agraph (float[1,2,3,8] x) => (float[1,2,3,8] y) {{
        c = Constant <value = bool {{1}}> ()
        y = If (c) <then_branch = yes () => (float[1,2,3,8] p) {{ a = Relu (x) p = {ROTARY} }},
                    else_branch = no () => (float[1,2,3,8] r) {{ r = Identity (x) }}>
    }}"""
    function = """
    agraph (float[1,2,3,8] x) => (float[1,2,3,8] y) { y = local.turned (x, cos, sin, at) }
    <opset_import: ["" : 23], domain: "local"> turned (v, cos, sin, at) => (w) { a = Relu (v) w = ROTARY }
    """.replace("ROTARY", ROTARY)
    x = torch.randn(1, 2, 3, 8)
    expected = run_onnxruntime(model(plain, tables, opset=23), (x,))
    for text in (plain, part, function):
        proto = model(text, tables, opset=23)
        proto.opset_import.add(domain="local", version=1)
        imported = import_model(proto)
        assert relative_error(run_graph(imported.graph, (x,)), expected) < 1e-6
        assert set(imported.layers) <= {"relu", "rotaryembedding"}


def test_attributes_that_a_definition_refers_to_have_their_defaults() -> None:
    proto = model("agraph (int64 n) => (float[4] y) { y = HannWindow (size) }", {"size": np.array(4)})
    expected = torch.hann_window(4, periodic=True)
    assert relative_error(run_graph(import_model(proto).graph, (torch.tensor(4),)), (expected,)) < 1e-6


# ---- functions ----


def test_a_function_of_another_opset_with_the_same_operators() -> None:
    proto = with_function("w = Relu (v)", "y = local.part (x)", opset=16)
    x = torch.randn(2, 4)
    assert torch.equal(run_graph(import_model(proto).graph, (x,))[0], x.relu())


def test_a_function_of_another_opset_with_other_operators() -> None:
    proto = with_function("s = Softmax (v) w = Relu (s)", "y = local.part (x)", opset=11)
    assert refusal(proto).endswith(
        "its function 'part' is of opset 11, and the model of opset 17, in which Softmax is another operator: export "
        "it with one opset"
    )


def test_nodes_of_functions_are_called_after_what_they_do() -> None:
    imported = import_model(with_function("u = Exp (v) w = Neg (u)", "z = local.part (x) y = local.part (z)"))
    names = [layer_name(node) for node in imported.graph.graph.nodes if node.op == "call_function"]
    assert names == ["exp", "neg", "exp_2", "neg_2"]
    assert "Unique (layer unique:" in refusal(with_function("w = Unique (v)", "y = local.part (x)"))


# ---- causes, and nothing that follows from them ----


@pytest.mark.parametrize(
    "bad",
    [
        "c = Constant <value = bool {1}> ()"
        " y = If (c) <then_branch = t () => (float[?] a) { b = Unique (x) a = Neg (b) },"
        " else_branch = e () => (float[2,4] d) { d = Identity (x) }>",
        "n = Constant <value = int64 {3}> () y = Loop (n, , x) <body = step (int64 i, bool g, float[2,4] s)"
        " => (bool h, float[?] t) { h = Identity (g) u = Unique (s) t = Neg (u) }>",
    ],
)
def test_what_is_refused_in_a_part_is_named_once(bad: str) -> None:
    text = refusal(model(f"agraph (float[2,4] x) => (float[?] z) {{ {bad} z = Relu (y) }}"))
    assert text.startswith("pcc cannot compile 1 operator of this model: Unique (layer unique: ")
    assert "nothing computes" not in text


def test_what_is_refused_in_a_definition_is_named_once() -> None:
    graph = (
        "agraph (float[3,5] x) => (float y) { l = Unique (x) m = Cast <to = 7> (l) y = SoftmaxCrossEntropyLoss (x, m) }"
    )
    assert refusal(model(graph)).startswith("pcc cannot compile 1 operator of this model: Unique (layer unique: ")


# ---- sparse weights ----


def sparse(values: list[float], indices: Any, dims: list[int]) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(
        numpy_helper.from_array(np.array(values, np.float32), "w"),
        numpy_helper.from_array(np.array(indices, np.int64), "places"),
        dims,
    )


@pytest.mark.parametrize("indices", [[1, 5], [[0, 1], [1, 2]]])
@pytest.mark.parametrize("kind", ["initializer", "constant", "constant in a function"])
def test_sparse_tensors(indices: Any, kind: str) -> None:
    tensor = sparse([2.0, 3.0], indices, [2, 3])
    node = helper.make_node("Constant", [], ["w"], sparse_value=tensor)
    proto = model("agraph (float[2,3] x) => (float[2,3] y) { y = Add (x, w) }")
    if kind == "initializer":
        proto.graph.sparse_initializer.append(tensor)
    elif kind == "constant":
        proto.graph.node.insert(0, node)
    else:
        opsets = [helper.make_opsetid("", 17)]
        nodes = [node, helper.make_node("Add", ["v", "w"], ["u"])]
        proto.functions.append(helper.make_function("local", "plus", ["v"], ["u"], nodes, opsets))
        proto.opset_import.add(domain="local", version=1)
        proto.graph.node[0].CopyFrom(helper.make_node("plus", ["x"], ["y"], domain="local"))
    before = proto.SerializeToString()
    expected = torch.tensor([[0.0, 2, 0], [0, 0, 3]])
    assert torch.equal(run_graph(import_model(proto).graph, (torch.zeros(2, 3),))[0], expected)
    assert proto.SerializeToString() == before


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (sparse([1.0], [6], [2, 3]), "the sparse tensor 'w' of the shape (2, 3) has other indices"),
        (sparse([1.0], [-1], [2, 3]), "has other indices"),
        (sparse([1.0], [[0, 3]], [2, 3]), "has other indices"),
        (sparse([1.0, 2.0], [0], [2, 3]), "has other indices"),
        (sparse([1.0], [0], [1 << 20, 1 << 20]), "larger than any that pcc makes dense"),
    ],
)
def test_sparse_tensors_that_are_damaged(tensor: onnx.SparseTensorProto, words: str) -> None:
    proto = model("agraph (float[2,3] x) => (float[2,3] y) { y = Add (x, w) }")
    proto.graph.sparse_initializer.append(tensor)
    assert words in refusal(proto)
    tensor = onnx.SparseTensorProto.FromString(tensor.SerializeToString())
    tensor.values.data_location = TensorProto.EXTERNAL
    proto.graph.sparse_initializer[0].CopyFrom(tensor)
    assert "the sparse tensor 'w' lies in another file" in refusal(proto)
