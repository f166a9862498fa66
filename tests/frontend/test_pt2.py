"""Archives of ``torch.export.save``: the same graph as of the module itself, and nothing in them runs."""

import io
import json
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pcc.errors import PccError
from pcc.frontend.imported import import_model
from pcc.frontend.torch_module import import_module
from pcc.ir.graph import layer_name
from pcc.ir.verify import relative_error, run_graph
from tests import public
from tests.nets import NETS, make


def save(net: nn.Module, inputs: tuple[Tensor, ...], path: Path, **options: Any) -> Path:
    torch.export.save(torch.export.export(net, inputs, **options), path)
    return path


def rewritten(path: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """A copy of an archive with each entry changed."""
    changed = path.with_name("changed.pt2")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return changed


@pytest.mark.parametrize("name", NETS)
def test_the_same_graph_as_of_the_module(name: str, tmp_path: Path) -> None:
    net, inputs = make(name)
    imported = import_model(save(net, inputs, tmp_path / "net.pt2"))
    direct = import_model(net, inputs)
    assert relative_error(run_graph(imported.graph, inputs), run_graph(direct.graph, inputs)) == 0
    for graph in (imported.graph, import_module(net, inputs)):
        calls = [
            (node.name, str(node.target), layer_name(node)) for node in graph.graph.nodes if node.op == "call_function"
        ]
        assert calls == [
            (node.name, str(node.target), layer_name(node))
            for node in direct.graph.graph.nodes
            if node.op == "call_function"
        ]
    assert (imported.inputs, imported.outputs) == (direct.inputs, direct.outputs)
    assert imported.origin.startswith("net.pt2 (torch.export, PyTorch")


def test_pccs_own_operators(tmp_path: Path) -> None:
    net, inputs = public.make("suppressed")
    imported = import_model(save(net, inputs, tmp_path / "net.pt2"))
    assert any(str(node.target) == "pcc.nms.default" for node in imported.graph.graph.nodes)
    assert relative_error(run_graph(imported.graph, inputs), net(*inputs)) == 0


def test_sizes_that_are_open(tmp_path: Path) -> None:
    net, _ = make("residual")
    sizes = {0: torch.export.Dim("batch", max=8), 2: torch.export.Dim("height", min=8)}
    path = save(net, (torch.randn(2, 3, 13, 10),), tmp_path / "net.pt2", dynamic_shapes=({**sizes},))
    with pytest.raises(
        PccError,
        match=r"leaves sizes of its inputs open: image \(s\d+, 3, s\d+, 10\); give --input-shape image=1,3,224,10",
    ):
        import_model(path)
    x = torch.randn(3, 3, 20, 10)
    assert relative_error(run_graph(import_model(path, {"image": x}).graph, (x,)), (net(x),)) < 1e-6
    with pytest.raises(PccError, match=r"was exported for s.* from 8 to any size, not 6"):
        import_model(path, torch.randn(3, 3, 6, 10))
    with pytest.raises(PccError, match="does not fit"):
        import_model(path, torch.randn(3, 3, 20, 11))


def test_shapes_that_are_computed_and_several_results(tmp_path: Path) -> None:
    class Computes(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
            halves = x.chunk(2, dim=1)
            largest, _ = halves[0].max(dim=-1)
            return (halves[1] * 2).reshape(x.shape[0], -1).relu_(), [largest, x.mean(-1, keepdim=True) * float("1e3")]

    x = torch.randn(4, 6, 10)
    path = save(Computes(), (x,), tmp_path / "net.pt2", dynamic_shapes=({0: torch.export.Dim("batch")},))
    imported = import_model(path, torch.randn(3, 6, 10))
    y = torch.randn(3, 6, 10)
    first, rest = Computes()(y)
    assert relative_error(run_graph(imported.graph, (y,)), (first, *rest)) < 1e-6
    assert imported.outputs == ("output_0", "output_1_0", "output_1_1")


class _Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    net, inputs = make("concat")
    path = save(net, inputs, tmp_path / "net.pt2")
    buffer = io.BytesIO()
    torch.save(_Attack(tmp_path / "executed"), buffer)

    def example_inputs(name: str, content: bytes) -> bytes:
        return buffer.getvalue() if "sample_inputs" in name else content

    imported = import_model(rewritten(path, example_inputs))
    assert relative_error(run_graph(imported.graph, inputs), (net(*inputs),)) < 1e-6

    def pickled_weight(name: str, content: bytes) -> bytes:
        if name.endswith("weights_config.json"):
            config = json.loads(content)
            config["config"]["single.0.weight"]["use_pickle"] = True
            return json.dumps(config).encode()
        return pickle.dumps(_Attack(tmp_path / "executed")) if name.endswith("weight_0") else content

    with pytest.raises(PccError, match=r"refused, reading 'single.0.weight' would run code stored in the file"):
        import_model(rewritten(path, pickled_weight))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("target", "inputs"),
    [
        ("torch.hub.load", [("repo", {"as_string": "x"})]),
        ("_operator.attrgetter", [("name", {"as_string": "__class__"})]),
        (
            "torch.ops.aten.from_file.default",
            [("filename", {"as_string": "FILE"}), ("shared", {"as_bool": True}), ("size", {"as_int": 4})],
        ),
        ("torch.ops.aten.save.default", [("item", {"as_string": "x"}), ("filename", {"as_string": "FILE"})]),
        ("torch.ops.aten._print.default", [("s", {"as_string": "x"})]),
        ("torch.ops.aten.__class__.__init__", []),
        ("torch.ops.aten.nonesuch.default", []),
        ("torch.ops.mine.operator.default", []),
        ("os.system", [("command", {"as_string": "touch FILE"})]),
    ],
)
def test_nothing_but_atens_operators_is_called(
    target: str, inputs: list[tuple[str, dict[str, Any]]], tmp_path: Path
) -> None:
    net, examples = make("concat")
    path = save(net, examples, tmp_path / "net.pt2")

    def call(name: str, content: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return content
        program = json.loads(content)
        arguments = [{"name": name, "arg": argument, "kind": 1} for name, argument in inputs]
        output = [{"as_tensor": {"name": "stolen"}}]
        program["graph_module"]["graph"]["nodes"].insert(
            0, {"target": target, "inputs": arguments, "outputs": output, "metadata": {}}
        )
        return json.dumps(program).replace("FILE", str(tmp_path / "executed")).encode()

    with pytest.raises(PccError, match="pcc compiles plain operators of ATen") as caught:
        import_model(rewritten(path, call))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


def test_expressions_and_guards_are_not_evaluated(tmp_path: Path) -> None:
    net, _ = make("residual")
    path = save(
        net, (torch.randn(2, 3, 13, 10),), tmp_path / "net.pt2", dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    code = f"__import__('pathlib').Path({str(tmp_path / 'executed')!r}).touch()"

    def evil(name: str, content: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return content
        program = json.loads(
            content, object_hook=lambda value: {**value, "expr_str": code} if "expr_str" in value else value
        )
        return json.dumps({**program, "guards_code": [code]}).encode()

    x = torch.randn(1, 3, 13, 10)
    assert relative_error(run_graph(import_model(rewritten(path, evil), x).graph, (x,)), (net(x),)) < 1e-6
    assert not (tmp_path / "executed").exists()


def test_models_with_state_are_refused(tmp_path: Path) -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.seen += 1
            return x + self.seen

    exported = torch.export.export(Counts(), (torch.ones(2),)).run_decompositions({})
    torch.export.save(exported, tmp_path / "net.pt2")
    with pytest.raises(PccError, match="changes 'seen' when it runs"):
        import_model(tmp_path / "net.pt2")


def test_other_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PccError, match="input input is float16"):
        import_model(save(nn.Linear(3, 3).half(), (torch.ones(2, 3).half(),), tmp_path / "net.pt2"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing", b"not an archive"])
def test_files_that_are_no_archives(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(content)
    with pytest.raises(PccError, match=r"is no archive of torch.export.save, or it is damaged"):
        import_model(tmp_path / "net.pt2")


def test_checkpoints_and_other_versions(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "weights.pt2")
    with pytest.raises(PccError, match="holds 0 programs"):
        import_model(tmp_path / "weights.pt2")
    net, inputs = make("concat")

    def newer(name: str, content: bytes) -> bytes:
        return content.replace(b'"major": 8', b'"major": 9') if name.endswith("model.json") else content

    with pytest.raises(PccError, match="has version 9 of the format"):
        import_model(rewritten(save(net, inputs, tmp_path / "net.pt2"), newer))
    with pytest.raises(PccError, match="there is no such file"):
        import_model(tmp_path / "gone.pt2")


def test_files_that_fill_the_memory(tmp_path: Path) -> None:
    net, inputs = make("concat")
    path = save(net, inputs, tmp_path / "net.pt2")

    def repeated(name: str, content: bytes) -> bytes:
        if not name.endswith("weights_config.json"):
            return content
        config = json.loads(content)
        meta = config["config"]["single.0.weight"]["tensor_meta"]
        meta["sizes"], meta["strides"] = [{"as_int": 2**40}], [{"as_int": 0}]
        return json.dumps(config).encode()

    with pytest.raises(PccError, match=r"a tensor repeats its numbers 1,099,511,627,776 times"):
        import_model(rewritten(path, repeated))
    packed = tmp_path / "packed.pt2"
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name in plain.namelist():
            zipped.writestr(name, plain.read(name) + b" " * 5_000_000)
    with pytest.raises(PccError, match=r"the archive has .* bytes and would take .*: PyTorch compresses no weights"):
        import_model(packed)


def test_weights_that_share_their_numbers(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    net, x = Tied(), torch.randn(2, 8)
    assert relative_error(run_graph(import_model(save(net, (x,), tmp_path / "net.pt2")).graph, (x,)), (net(x),)) < 1e-6


def test_bits_that_flip_and_files_that_end(tmp_path: Path) -> None:
    net, inputs = make("squeeze_excite")
    content = save(net, inputs, tmp_path / "whole.pt2").read_bytes()
    generator = random.Random(3)
    refusals = []
    for trial in range(40):
        damaged = bytearray(content[: generator.randrange(len(content))] if trial % 3 == 0 else content)
        for _ in range(generator.choice((1, 8, 40)) if trial % 3 else 0):
            damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
        (tmp_path / "net.pt2").write_bytes(damaged)
        try:
            import_model(tmp_path / "net.pt2")
        except PccError as error:
            refusals.append(str(error))
    assert len(refusals) > 20
    assert not [text for text in refusals if "\n" in text]
