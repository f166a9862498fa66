"""What becomes of the rows of a NonMaxSuppression, of which those behind its count are none."""

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor

from pcc.errors import PccError
from pcc.frontend.imported import import_model
from pcc.frontend.supported import check_supported
from pcc.ir.verify import run_graph
from pcc.passes.canonicalize import Canonicalize
from pcc.passes.decompose import Decompose
from pcc.passes.manager import PassManager
from tests.frontend.onnx.models import model, run_onnxruntime

BOXES = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1.1], [0, 2, 1, 3], [9, 9, 10, 10]]], dtype=torch.float32)
SCORES = torch.tensor([[[0.9, 0.8, 0.7, 0.1], [0.2, 0.5, 0.9, 0.1]]])
"""Of two classes, of each of which two boxes stay: never the last, which is what -1 gathers."""

CONSTANTS = {
    "most": np.array([4]),
    "iou": np.array([0.5], np.float32),
    "least": np.array([0.4], np.float32),
    "i0": np.array([0]),
    "i1": np.array([1]),
    "i2": np.array([2]),
    "i3": np.array([3]),
    "one": np.array(1),
    "two": np.array(2),
    "last": np.array(-1),
    "ends": np.array([1 << 40]),
    "back": np.array([-1]),
    "zero": np.array(0),
    "fours": np.array([-1, 4]),
    "ids": np.array([0, 1]),
    "flat": np.array([-1]),
    "matrix": np.arange(12, dtype=np.float32).reshape(4, 3),
    "three": np.array([3]),
    "bound": np.array(0.5, np.float32),
    "window": np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2),
}

FLAT = "t = Transpose <perm = [0, 2, 1]> (scores) s2 = Squeeze (t, i0)"
"""(N, classes)."""

GATHERED = f"""
    col = Slice (c, i2, i3, i1)
    at = Squeeze (col, i1)
    first = Squeeze (boxes, i0)
    b = Gather (first, at)
    {FLAT}
    s = Gather (s2, at)
"""
"""The boxes of the rows (N, 4), and their scores (N, classes)."""


def suppressed(body: str, outputs: str = "y") -> onnx.ModelProto:
    declared = ", ".join(f"float[?] {name}" for name in outputs.split())
    text = f"""
    agraph (float[1,4,4] boxes, float[1,2,4] scores) => ({declared}) {{
        c = NonMaxSuppression (boxes, scores, most, iou, least) {body}
    }}"""
    proto = model(text, CONSTANTS)
    for output in proto.graph.output:
        output.CopyFrom(onnx.ValueInfoProto(name=output.name))
    return proto


def run(proto: onnx.ModelProto) -> Mapping[str, Tensor]:
    imported = import_model(proto)
    return dict(zip(imported.outputs, run_graph(imported.graph, (BOXES, SCORES)), strict=True))


def of_onnxruntime(proto: onnx.ModelProto) -> Tensor:
    for output in proto.graph.output:
        output.CopyFrom(helper.make_tensor_value_info(output.name, onnx.TensorProto.UNDEFINED, None))
    inferred = onnx.shape_inference.infer_shapes(proto)
    return run_onnxruntime(inferred, (BOXES, SCORES))[0]


ROW_BY_ROW = {
    "columns": "y = Slice (c, i2, i3, i1)",
    "a column by number": "y = Gather <axis = 1> (c, two)",
    "the first rows": "y = Slice (c, i0, i3, i0)",
    "boxes": f"{GATHERED} y = Identity (b)",
    "boxes in other units": f"{GATHERED} z = Add (b, b) y = MatMul (z, matrix)",
    "boxes and scores": f"{GATHERED} y = Concat <axis = 1> (b, s)",
    "largest of each row": f"{GATHERED} y = ReduceMax <axes = [1], keepdims = 0> (s)",
    "sums of each row": f"{GATHERED} z = Unsqueeze (s, i0) y = ReduceSum (z, i2)",
    "classes of each row": f"{GATHERED} y = ArgMax <axis = 1> (s)",
    "shares of each row": f"{GATHERED} y = Softmax <axis = 1> (s)",
    "a transposed list": f"{GATHERED} z = Transpose (b) u, v = Split <axis = 0> (z) y = Transpose (v)",
    "coordinates": f"""
        {FLAT} u = Gather <axis = 1> (c, two) v = Gather <axis = 1> (c, one)
        uu = Unsqueeze (u, i1) vv = Unsqueeze (v, i1) at = Concat <axis = 1> (uu, vv) y = GatherND (s2, at)
    """,
    "as PyTorch writes boxes[image, place]": """
        image = Gather <axis = 1> (c, zero) place = Gather <axis = 1> (c, two)
        sizes = Shape (boxes) each = Gather (sizes, one) begin = Mul (image, each) number = Add (begin, place)
        grouped = Reshape (boxes, fours) taken = Gather (grouped, number)
        all = Shape (number) rest = Slice (sizes, i2, i3) wanted = Concat <axis = 0> (all, rest)
        y = Reshape (taken, wanted)
    """,
    "ones beside boxes": f"""
        {GATHERED} all = Shape (at) each = Concat <axis = 0> (all, i1) z = ConstantOfShape (each)
        y = Concat <axis = 1> (b, z)
    """,
    "other sizes of a shape": f"""
        {GATHERED} all = Shape (b) four = Gather (all, one) f = Unsqueeze (four, i0) g = Concat <axis = 0> (flat, f)
        y = Reshape (b, g)
    """,
    "where": f"{GATHERED} z = Greater (s, bound) y = Where (z, s, bound)",
    "regions": f"""
        {GATHERED} x = Unsqueeze (boxes, i0) image = Gather <axis = 1> (c, zero)
        y = RoiAlign <output_height = 2, output_width = 2, sampling_ratio = 2> (x, b, image)
    """,
    "convolved regions": f"""
        {GATHERED} x = Unsqueeze (boxes, i0) image = Gather <axis = 1> (c, zero)
        r = RoiAlign <output_height = 3, output_width = 3, sampling_ratio = 1> (x, b, image)
        z = Conv (r, window) g = GlobalAveragePool (z) y = Flatten (g)
    """,
    "at most so many": f"{GATHERED} z = Gather <axis = 1> (s, one) n = Shape (z) k = Min (n, three) u, v = TopK (z, k)"
    " y = Gather (b, v)",
    "at most so many, as Paddle writes it": f"""
        {GATHERED} z = Gather <axis = 1> (s, one) n = Shape (z) m = Concat <axis = 0> (n, three)
        k = ReduceMin <axes = [0]> (m) u, v = TopK (z, k) y = Gather (b, v)
    """,
    "sorted": f"{GATHERED} z = Gather <axis = 1> (s, one) n = Shape (z) u, v = TopK (z, n) y = Gather (b, v)",
}


@pytest.mark.parametrize("name", ROW_BY_ROW)
def test_what_is_made_row_by_row_is_right_for_the_rows_that_count(name: str) -> None:
    proto = suppressed(ROW_BY_ROW[name])
    results = run(proto)
    (expected,), found = (of_onnxruntime(proto),), results["y"]
    dim = next((dim for dim, sizes in enumerate(zip(found.shape, expected.shape, strict=True)) if len({*sizes}) > 1), 0)
    assert int(results["nonmaxsuppression_count"]) == 4
    assert torch.allclose(found.narrow(dim, 0, expected.shape[dim]).float(), expected.float())


OVER_ROWS = {
    "TopK": f"{GATHERED} z = Gather <axis = 1> (b, two) y, v = TopK (z, three)",
    "places of TopK": f"{GATHERED} z = Gather <axis = 1> (b, two) u, y = TopK (z, three)",
    "the least": f"{GATHERED} z = Gather <axis = 1> (s, one) u, y = TopK <largest = 0> (z, three)",
    "ReduceMax": f"{GATHERED} y = ReduceMax <axes = [0]> (b)",
    "ReduceMin": f"{GATHERED} y = ReduceMin <axes = [0], keepdims = 0> (s)",
    "ReduceMin of all": f"{GATHERED} y = ReduceMin <keepdims = 0> (s)",
    "ReduceMin of numbers": "y = ReduceMin (c)",
    "ArgMax": f"{GATHERED} y = ArgMax (b)",
    "ArgMin": f"{GATHERED} y = ArgMin (s)",
    "the first row": f"{GATHERED} y = Gather (b, one)",
}


@pytest.mark.parametrize("name", OVER_ROWS)
def test_the_largest_and_the_least_are_of_the_rows_that_count(name: str) -> None:
    proto = suppressed(OVER_ROWS[name])
    assert torch.equal(run(proto)["y"], of_onnxruntime(proto))


MIXED = {
    "Shape": "y = Shape (c)",
    "Size": "y = Size (c)",
    "a computed shape": "z = Shape (c) n = Gather (z, zero) y = Mul (n, two)",
    "ReduceSum": f"{GATHERED} y = ReduceSum (s, i0)",
    "ReduceMean": f"{GATHERED} y = ReduceMean <axes = [0]> (s)",
    "CumSum": f"{GATHERED} y = CumSum (s, i0)",
    "Softmax": f"{GATHERED} y = Softmax <axis = 0> (s)",
    "Concat": f"{GATHERED} y = Concat <axis = 0> (b, first)",
    "Reshape": f"{GATHERED} y = Reshape (b, flat)",
    "Slice": "y = Slice (c, i1, ends, i0)",
    "Slice from the end": "y = Slice (c, i0, back, i0)",
    "Gather": "y = Gather (c, last)",
    "ScatterElements": f"{GATHERED} y = ScatterElements (boxes, col, col)",
    "OneHot": f"{GATHERED} y = OneHot (at, two, ids)",
    "Conv": "y = Conv (c, c)",
    "all against all": f"{GATHERED} u = Unsqueeze (at, i0) v = Unsqueeze (at, i1) y = Equal (u, v)",
    "of two": f"{GATHERED} d = NonMaxSuppression (boxes, scores, most, iou, least) y = Sub (c, d)",
    "in a loop": "y = Loop (one, , c) <body = step (int64 i, bool g, int64[?] v) => (bool h, int64[?] w)"
    " { h = Identity (g) w = Neg (v) }>",
}


@pytest.mark.parametrize("name", MIXED)
def test_what_mixes_or_counts_rows_is_refused(name: str) -> None:
    with pytest.raises(PccError) as caught:
        run(suppressed(MIXED[name]))
    operator = MIXED[name].partition("y = ")[2].split()[0]
    assert "its output 'nonmaxsuppression_count' says how many of them count" in str(caught.value)
    assert str(caught.value).startswith(f"pcc cannot compile 1 operator of this model: {operator} (layer")


def test_each_suppression_has_its_count() -> None:
    proto = suppressed(
        "d = NonMaxSuppression (boxes, scores, most, iou, more) y = Identity (c) z = Identity (d)", outputs="y z"
    )
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0.75], np.float32), "more"))
    results = run(proto)
    assert [int(results[name]) for name in ("nonmaxsuppression_count", "nonmaxsuppression_count_2")] == [4, 2]


def test_rows_that_are_known_are_those_that_count() -> None:
    proto = suppressed("y = Add (c, zero)")
    del proto.graph.input[:]
    proto.graph.input.append(helper.make_tensor_value_info("zero", onnx.TensorProto.INT64, [1]))
    kept = [value for value in proto.graph.initializer if value.name != "zero"]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    for name, value in (("boxes", BOXES), ("scores", SCORES)):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(value.numpy(), name))
    imported = import_model(proto)
    assert imported.outputs == ("y",)
    assert run_graph(imported.graph, (torch.zeros(1, dtype=torch.int64),))[0].shape == (4, 3)


def test_pcc_compiles_what_goes_over_rows() -> None:
    imported = import_model(suppressed(OVER_ROWS["TopK"]))
    check_supported(PassManager([Decompose(), Canonicalize()])(imported.graph).graph_module)
