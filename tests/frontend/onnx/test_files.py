"""Files that are damaged, hostile or not for pcc: one line, whatever they hold."""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from pcc.errors import PccError
from pcc.frontend.imported import import_model
from pcc.ir.verify import relative_error, run_graph
from tests.frontend.onnx.models import export, model, run_onnxruntime, weight
from tests.nets import make


def refusal(source: Path | onnx.ModelProto) -> str:
    with pytest.raises(PccError) as caught:
        import_model(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def external(tmp_path: Path, location: str, length: int | None = None) -> Path:
    """A model whose one weight lies in another file."""
    proto = model("agraph (float[2,3] x) => (float[2,4] y) { y = MatMul (x, w) }")
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3, 4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    if length is not None:
        tensor.external_data.add(key="length", value=str(length))
    proto.graph.initializer.append(tensor)
    path = tmp_path / "model" / "net.onnx"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(proto.SerializeToString())
    return path


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    path = external(tmp_path, "weights/w.bin")
    (path.parent / "weights").mkdir()
    (path.parent / "weights/w.bin").write_bytes(weight(3, 4).tobytes())
    x = torch.randn(2, 3)
    assert relative_error(run_graph(import_model(path).graph, (x,)), run_onnxruntime(path, (x,))) < 1e-6
    (path.parent / "weights/w.bin").write_bytes(b"short")
    assert "reads 48 bytes of weights from 'weights/w.bin', which has 5" in refusal(path)
    assert "give pcc the model's path" in refusal(onnx.load(path, load_external_data=False))


@pytest.mark.parametrize(
    "location",
    ["../secret.bin", "/etc/hostname", "link.bin", "folder/secret.bin", "missing.bin", "sub/../../secret.bin"],
)
def test_external_data_stays_in_its_folder(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(weight(3, 4).tobytes())
    path = external(tmp_path, location)
    os.symlink(tmp_path / "secret.bin", path.parent / "link.bin")
    os.symlink(tmp_path, path.parent / "folder")
    assert ("there is no file" if location == "missing.bin" else "lies outside of the model's folder") in refusal(path)


def node(operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, outputs, **attributes)


def built(
    *nodes: onnx.NodeProto, weights: dict[str, np.ndarray] | None = None, sizes: tuple[int, ...] = (1, 3, 4, 4)
) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    tensors = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(
        nodes, "net", [value("x", TensorProto.FLOAT, sizes)], [value("y", TensorProto.FLOAT, None)], tensors
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize(
    ("proto", "words"),
    [
        (built(node("Relu", ["b"], ["a"]), node("Relu", ["a"], ["b"]), node("Add", ["a", "x"], ["y"])), "is damaged"),
        (built(node("Relu", ["gone"], ["y"])), "nothing computes its input 'gone'"),
        (built(node("Relu", ["x"], ["z"])), "nothing computes its output 'y'"),
        (built(node("Conv", ["x", "w"], ["y"]), weights={"w": weight(2, 5, 1, 1)}), "1 operator of this model: Conv"),
        (built(node("Conv", ["x"], ["y"])), "1 operator of this model: Conv"),
        (
            built(node("Conv", ["x", "w"], ["y"], pads=[1, 1]), weights={"w": weight(2, 3, 1, 1)}),
            r"pads=\[1, 1\] for 2 spatial axes",
        ),
        (
            built(node("Conv", ["x", "w"], ["y"], pads=[-9] * 4), weights={"w": weight(2, 3, 1, 1)}),
            "1 operator of this model: Conv",
        ),
        (built(node("Relu", ["x"], ["y"], slope=1.0)), r"attribute slope=1\.0"),
        (built(node("Relu", ["x", "x", "x"], ["y"])), "3 inputs, where it has 1 at most"),
        (
            built(node("Tile", ["x", "n"], ["y"]), weights={"n": np.array([1 << 20, 1 << 20, 1, 1], np.int64)}),
            "larger than any that pcc computes",
        ),
        (
            built(node("ConstantOfShape", ["n"], ["y"]), weights={"n": np.array([1 << 40], np.int64)}),
            "larger than any that pcc computes",
        ),
        (
            built(node("ConstantOfShape", ["n"], ["y"]), weights={"n": np.array([-4], np.int64)}),
            "larger than any|1 operator",
        ),
        (
            built(
                node("Range", ["a", "b", "c"], ["y"]),
                weights={k: np.array(v, np.int64) for k, v in zip("abc", (0, 1 << 50, 1), strict=True)},
            ),
            "larger",
        ),
        (
            built(node("Reshape", ["x", "n"], ["y"]), weights={"n": np.array([7, -1], np.int64)}),
            "1 operator of this model: Reshape",
        ),
        (built(node("Relu", ["x"], ["y"]), sizes=(1, 3, -4, 4)), r"open: x \(1, 3, \?, 4\)"),
        (built(node("QLinearConv", ["x"] * 8, ["y"])), "export the network before it is quantised"),
        (
            built(node("QuantizeLinear", ["x", "s"], ["y"]), weights={"s": weight(1)}),
            "export the network before it is quantised",
        ),
        (built(node("NonZero", ["x"], ["y"])), "computed from the model's input"),
        (built(node("RandomNormalLike", ["x"], ["y"])), "random numbers"),
        (built(node("Loop", ["x", ""], ["y"])), "its number of steps is computed from the model's input"),
        (built(node("If", ["n"], ["y"]), weights={"n": np.array(True)}), "the attribute then_branch is missing"),
        (built(node("Scan", ["x"], ["y"])), "the attribute num_scan_inputs is missing"),
        (built(node("DFT", ["x"], ["y"])), "it computes a spectrum"),
        (built(node("Frobnicate", ["x"], ["y"])), "Frobnicate .*pcc does not know it"),
        (built(helper.make_node("FusedConv", ["x"], ["y"], domain="com.microsoft")), "of the domain 'com.microsoft'"),
        (built(node("Relu", ["x"], ["a"]), node("Cast", ["a"], ["y"], to=99)), "element type 99"),
        (built(node("Relu", ["x"], ["a"]), node("Cast", ["a"], ["y"], to=8)), "elements of type STRING"),
        (
            built(
                node("RoiAlign", ["x", "b", "i"], ["y"], mode="max"),
                weights={"b": np.ones((2, 4)), "i": np.ones(2, np.int64)},
            ),
            "mode=max, .*export it with 2",
        ),
        (
            built(node("RoiAlign", ["x", "b", "i"], ["y"]), weights={"b": np.ones((2, 4)), "i": np.ones(2, np.int64)}),
            "sampling_ratio=0; .*export it with 2",
        ),
    ],
)
def test_models_that_cannot_be(proto: onnx.ModelProto, words: str) -> None:
    import re

    assert re.search(words, text := refusal(proto)), text


def test_all_that_cannot_be_imported_is_named() -> None:
    nodes = [
        node("Frobnicate", ["x"], ["a"]),
        node("Relu", ["a"], ["b"]),
        node("Unique", ["b"], ["c"]),
        node("Relu", ["c"], ["y"], slope=2.0),
    ]
    text = refusal(built(*nodes))
    assert text.startswith("pcc cannot compile 2 operators of this model: Frobnicate (layer ")
    assert "; Unique (layer " in text


def test_what_is_refused_for_the_same_reason_is_named_once() -> None:
    scale = {"s": np.ones(1, np.float32), "z": np.zeros(1, np.uint8)}
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["a"], name="first"),
        node("DynamicQuantizeLinear", ["a"], ["b", "c", "d"], name="second"),
    ]
    text = refusal(built(*nodes, node("QuantizeLinear", ["b", "s", "z"], ["y"], name="third"), weights=scale))
    assert text.startswith(
        "pcc cannot compile 3 operators of this model: QuantizeLinear, DynamicQuantizeLinear (layer first and 2 more: "
        "it computes with"
    )
    assert text.endswith("export the network before it is quantised)")


def test_other_types_are_refused() -> None:
    half = built(node("Add", ["x", "h"], ["y"]), weights={"h": np.ones(4, np.float16)})
    half.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    assert "input x is float16" in refusal(half)
    double = built(
        node("Cast", ["x"], ["a"], to=11),
        node("Mul", ["a", "d"], ["b"]),
        node("Cast", ["b"], ["y"], to=1),
        weights={"d": np.ones((4, 4))},
    )
    assert "'d' is float64: pcc compiles fp32 models" in refusal(double)
    nothing = built(node("Add", ["x", "w"], ["y"]), weights={"w": np.array([1, np.inf, 0, np.nan], np.float32)})
    assert "weights are not finite: w (1 NaN, 1 Inf of 4)" in refusal(nothing)
    infinite = model(
        "agraph (float[2,2] x) => (float[2,2] y) { y = MatMul (x, w) }",
        {"w": np.array([[1, np.inf], [0, 1]], np.float32)},
    )
    assert "weights are not finite: w (0 NaN, 1 Inf of 4)" in refusal(infinite)


def test_masks_are_infinite() -> None:
    hidden = np.triu(np.full((5, 5), -np.inf, np.float32), 1)
    proto = model(
        "agraph (float[5,5] x) => (float[5,5] y) { masked = Add (x, mask) y = Softmax <axis = -1> (masked) }",
        {"mask": hidden},
    )
    x = (torch.randn(5, 5),)
    assert relative_error(run_graph(import_model(proto).graph, x), run_onnxruntime(proto, x)) < 1e-6


def test_old_opsets() -> None:
    proto = built(node("Relu", ["x"], ["y"]))
    proto.opset_import[0].version = 6
    assert "has opset 6: pcc reads opset 7 and later" in refusal(proto)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07", b"\x00" * 100])
def test_files_that_are_no_models(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    assert "net.onnx" in refusal(tmp_path / "net.onnx")


def test_bits_that_flip_and_files_that_end(tmp_path: Path) -> None:
    net, inputs = make("squeeze_excite")
    content = export(net, inputs, tmp_path / "whole.onnx", dynamo=False, opset=13).read_bytes()
    generator = random.Random(3)
    path = tmp_path / "net.onnx"
    refusals = []
    for trial in range(60):
        damaged = bytearray(content[: generator.randrange(len(content))] if trial % 3 == 0 else content)
        for _ in range(generator.choice((1, 8, 40)) if trial % 3 else 0):
            damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        try:
            import_model(path)
        except PccError as error:
            refusals.append(str(error))
    assert len(refusals) > 30
    assert not [text for text in refusals if "\n" in text]


def test_external_data_that_many_tensors_read(tmp_path: Path) -> None:
    """A file of some bytes as gigabytes of weights."""
    path = external(tmp_path, "w.bin", 48)
    (path.parent / "w.bin").write_bytes(weight(3, 4).tobytes())
    many = onnx.load(path, load_external_data=False)
    for number in range(9):
        many.graph.initializer.add().CopyFrom(many.graph.initializer[0])
        many.graph.initializer[-1].name = f"again_{number}"
    path.write_bytes(many.SerializeToString())
    assert "reads 480 bytes of weights from 'w.bin', which has 48" in refusal(path)


def test_functions_that_call_each_other_twice() -> None:
    """Thirty of them stand for a thousand million nodes."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    functions = []
    for number in range(30):
        called, domain = (f"twice_{number - 1}", "local") if number else ("Neg", "")
        calls = [
            helper.make_node(called, ["a"], ["b"], domain=domain),
            helper.make_node(called, ["b"], ["c"], domain=domain),
        ]
        functions.append(helper.make_function("local", f"twice_{number}", ["a"], ["c"], calls, opsets))
    bomb = built(helper.make_node("twice_29", ["x"], ["y"], domain="local"))
    bomb.functions.extend(functions)
    bomb.opset_import.add(domain="local", version=1)
    assert "has more than 20,000 nodes, its functions written out" in refusal(bomb)


@pytest.mark.parametrize("source", ["x", "known"])
def test_loops_in_loops(source: str) -> None:
    """Of 900 steps each: written out they are millions of nodes."""
    values = helper.make_tensor_value_info

    def body(depth: int) -> onnx.GraphProto:
        inner = (
            node("Loop", ["n", "t", f"v{depth}"], [f"w{depth}"], body=body(depth - 1))
            if depth
            else node("Neg", ["v0"], ["w0"])
        )
        taken = [
            values(f"i{depth}", TensorProto.INT64, []),
            values(f"c{depth}", TensorProto.BOOL, []),
            values(f"v{depth}", TensorProto.FLOAT, None),
        ]
        state = [values(f"d{depth}", TensorProto.BOOL, []), values(f"w{depth}", TensorProto.FLOAT, None)]
        return helper.make_graph([node("Identity", [f"c{depth}"], [f"d{depth}"]), inner], f"body{depth}", taken, state)

    nodes = [node("Loop", ["n", "t", source], ["z"], body=body(2)), node("Add", ["x", "z"], ["y"])]
    numbers = {"n": np.array(900, np.int64), "t": np.array(True), "known": np.ones((1, 3, 4, 4), np.float32)}
    assert "has more than 20,000 nodes, its loops written out" in refusal(built(*nodes, weights=numbers))


def test_constants_that_fill_the_memory() -> None:
    nodes = []
    for number in range(9):
        nodes += [
            node("ConstantOfShape", ["n"], [f"c{number}"]),
            node("ReduceSum", [f"c{number}"], [f"s{number}"], keepdims=0),
        ]
        nodes.append(
            node("Add", [f"y{number - 1}" if number else "x", f"s{number}"], [f"y{number}" if number < 8 else "y"])
        )
    assert "with those before, more than pcc computes for a file of this size" in refusal(
        built(*nodes, weights={"n": np.array([1 << 24], np.int64)})
    )
    weights = {"w": weight(1 << 10), "n": np.array([1 << 19], np.int64)}
    assert "a constant of 2,147,483,648 bytes" in refusal(
        built(node("Tile", ["w", "n"], ["t"]), node("Add", ["x", "t"], ["y"]), weights=weights)
    )


def test_inputs_that_are_too_large() -> None:
    assert "more than 268,435,456 numbers" in refusal(built(node("Relu", ["x"], ["y"]), sizes=(1, 3, 1 << 28, 1 << 28)))
