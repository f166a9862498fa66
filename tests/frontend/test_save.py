"""Export: other tools compute what the graph computes, and pcc reads it back."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pcc.errors import PccError
from pcc.exporter import export_model
from pcc.frontend.imported import import_model
from pcc.frontend.save import save_onnx
from pcc.ir.graph import layer_name
from pcc.ir.verify import relative_error, run_graph
from pcc.passes.manager import PassManager
from pcc.passes.pipeline import parse_pipeline
from pcc.passes.spell_out import SpellOut
from tests.frontend.onnx.models import model, run_onnxruntime
from tests.nets import NETS, Residual, make, settle

FUSED = "decompose,canonicalize,fold-constants,fold-batchnorm,drop-filters,fuse-epilogues,reorder-kernels"


@pytest.mark.parametrize("pipeline", ["", FUSED])
@pytest.mark.parametrize("name", NETS)
def test_the_round_trip(name: str, pipeline: str, tmp_path: Path) -> None:
    net, inputs = make(name)
    result = net(*inputs)
    expected = tuple(result.values()) if isinstance(result, dict) else (result,)
    for suffix in (".onnx", ".pt2"):
        exported, _ = export_model(net, inputs, out=tmp_path / f"net{suffix}", pipeline=pipeline)
        assert not [node for node in exported.graph.graph.nodes if str(node.target).startswith("pcc.")]
        back = import_model(tmp_path / f"net{suffix}")
        assert relative_error(run_graph(back.graph, inputs), expected) < 1e-5
        assert (back.inputs, back.outputs) == (exported.inputs, exported.outputs)
    assert relative_error(run_onnxruntime(tmp_path / "net.onnx", inputs), expected) < 1e-5


class Several(nn.Module):
    """Operators of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.norm = settle(Residual()), nn.LayerNorm(11)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        resized = nn.functional.interpolate(self.norm(x), scale_factor=2, mode="bilinear")
        unit = nn.functional.normalize(x, dim=1)
        return self.layers(x), resized.softmax(-1), x.topk(3, -1)[0], x.flatten(1).argmax(1), x.cumsum(1), unit


@pytest.mark.parametrize("step", ["store-weights", "reduce-precision"])
def test_fp16_is_exported(step: str, tmp_path: Path) -> None:
    """As what the graph computes: in fp32, of fp16 that is fp16 between operators."""
    net, x = Several().eval(), torch.randn(2, 3, 13, 11, generator=torch.Generator().manual_seed(0))
    pipeline = f"{FUSED},{step}"
    with torch.no_grad():
        expected = net(x)
    graph = PassManager(parse_pipeline(pipeline))(import_model(net, x).graph).graph_module
    computed = run_graph(graph, (x,))
    assert 1e-5 < relative_error(computed, expected) < 2e-3
    for file in (tmp_path / "net.onnx", tmp_path / "net.pt2"):
        export_model(net, x, out=file, pipeline=pipeline)
        found = run_onnxruntime(file, (x,)) if file.suffix == ".onnx" else torch.export.load(file).module()(x)
        assert relative_error(found, computed) < (1e-5 if step == "store-weights" else 2e-3)


def test_an_exported_file_is_exported_again(tmp_path: Path) -> None:
    """PyTorch calls the weight of a linear layer ``t``, and what it computes of another one, too."""
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 3)).eval(), torch.randn(1, 3, 2, 2)
    files = [tmp_path / f"{number}.onnx" for number in range(3)]
    export_model(net, (x,), out=files[0])
    for file, again in pairwise(files):
        export_model(file, None, out=again)
        assert relative_error(run_onnxruntime(again, (x,)), (net(x),)) < 1e-6


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
def test_windows_that_see_nothing_but_padding_are_none(operator: str, tmp_path: Path) -> None:
    proto = model(
        "agraph (float[1,2,4,4] x) => (float[1,2,H,W] y) { y = OPERATOR <kernel_shape = [2, 2], strides = [2, 2], "
        "pads = [0, 0, 1, 1], ceil_mode = 1> (x) }".replace("OPERATOR", operator),
        opset=19,
    )
    x = (torch.randn(1, 2, 4, 4),)
    (expected,) = run_graph(import_model(proto).graph, x)
    onnx.save(proto, tmp_path / "net.onnx")
    export_model(tmp_path / "net.onnx", None, out=tmp_path / "out.onnx")
    assert expected.shape == (1, 2, 2, 2)
    for found in (run_graph(import_model(tmp_path / "out.onnx").graph, x), run_onnxruntime(tmp_path / "out.onnx", x)):
        assert relative_error(found, (expected,)) < 1e-6


def test_filters_that_are_dropped_are_not_in_the_file(tmp_path: Path) -> None:
    net, inputs = make("residual")
    state = net.state_dict()
    for key in ("second.0.0.weight", "second.0.1.bias", "second.0.1.running_mean"):
        state[key][::2] = 0
    exported, _ = export_model(net, inputs, out=tmp_path / "net.onnx")
    export_model(net, inputs, out=tmp_path / "net.safetensors")
    weights = load_file(tmp_path / "net.safetensors")
    assert weights["second.0.0.weight"].shape == (8, 8, 3, 3)
    assert weights["second.1.weight"].shape == (16, 8, 3, 3)
    assert weights.keys() == dict(exported.graph.named_buffers()).keys()
    assert relative_error(run_onnxruntime(tmp_path / "net.onnx", inputs), (net(*inputs),)) < 1e-5
    names = [
        layer_name(node)
        for node in import_model(tmp_path / "net.onnx").graph.graph.nodes
        if "conv2d" in str(node.target)
    ]
    assert "second.0.0" in names


def test_packed_weights_become_dense(tmp_path: Path) -> None:
    linear = nn.Linear(6400, 64)
    net = settle(
        nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.Flatten(), linear)
    )
    linear.weight.data[torch.rand(64, 6400) < 0.95] = 0
    x = torch.randn(1, 8, 20, 20)
    imported = import_model(net, x)
    pruned = (
        "canonicalize,prune-pattern{spare_first=false},prune-connectivity{spare_first=false},"
        "reorder-kernels,select-kernels{processor=intel-avx512}"
    )
    graph = PassManager(parse_pipeline(pruned))(imported.graph).graph_module
    packed = [node.args[1] for node in graph.graph.nodes if str(node.target) == "pcc.unpack.default"]
    assert packed == ["fkw", "fkw", "csr"]
    expected = run_graph(graph, (x,))
    graph = PassManager([SpellOut()])(graph).graph_module
    save_onnx(replace(imported, graph=graph), tmp_path / "net.onnx")
    assert relative_error(run_onnxruntime(tmp_path / "net.onnx", (x,)), expected) < 1e-5


class Pools(nn.Module):
    """What pcc's pooling and interpolation can and PyTorch's cannot: uneven padding, factors beside rounded sizes."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        padded = nn.functional.pad(x, (0, 1, 1, 0))
        counted = nn.functional.avg_pool2d(padded, 3, 2)
        resized = nn.functional.interpolate(x, scale_factor=1.7, mode="bilinear", recompute_scale_factor=False)
        return (
            counted,
            nn.functional.max_pool2d(x, 3, 2, ceil_mode=True),
            resized,
            nn.functional.interpolate(x, scale_factor=2.5),
        )


def test_poolings_and_interpolations(tmp_path: Path) -> None:
    x = torch.randn(1, 3, 10, 9)
    export_model(Pools(), x, out=tmp_path / "net.onnx")
    assert relative_error(run_onnxruntime(tmp_path / "net.onnx", (x,)), Pools()(x)) < 1e-5
    export_model(Pools(), x, out=tmp_path / "net.pt2")
    assert relative_error(run_graph(import_model(tmp_path / "net.pt2").graph, (x,)), Pools()(x)) < 1e-5


def test_places_of_equal_maxima(tmp_path: Path) -> None:
    """Windows of uneven sizes are filled up with inputs again: the place of a maximum is that of the first."""

    class Places(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.adaptive_max_pool2d(x, (3, 1), return_indices=True)[1]

    x = torch.ones(1, 2, 2, 4)
    for name in ("net.pt2", "net.onnx"):
        export_model(Places(), (x,), out=tmp_path / name, pipeline=FUSED)
        assert torch.equal(run_graph(import_model(tmp_path / name).graph, [x])[0], Places()(x))


def test_what_cannot_be_written(tmp_path: Path) -> None:
    net, inputs = make("concat")
    with pytest.raises(PccError, match=r"give a file that ends in .onnx, .pt2, .safetensors"):
        export_model(net, inputs, out=tmp_path / "net.tflite")
    with pytest.raises(PccError, match="plan-memory works on the kernel program"):
        export_model(net, inputs, out=tmp_path / "net.onnx", pipeline="canonicalize,plan-memory")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(PccError, match="cannot write"):
        export_model(net, inputs, out=tmp_path / "file" / "net.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
