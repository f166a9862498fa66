"""Models from ONNX files and ``.pt2`` archives as modules that train, and back to a file."""

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from pcc.errors import PccError
from pcc.frontend.imported import import_model
from pcc.training.from_file import open_file
from tests.frontend.onnx.models import export, model, run_onnxruntime, weight

SHAPE = (3, 9, 8)


class Net(nn.Module):
    """A layer that is called twice, a shortcut, a batch norm, an uneven pooling, sizes that hang on the number of
    samples."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = False
        self.stem, self.again = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8 * 5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.again(torch.relu(self.again(x)))
        x = nn.functional.adaptive_avg_pool2d(x, (5, 1))
        return self.head(x.flatten(1) if self.flat else x.reshape(x.shape[0], -1))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    module = Net().eval()
    module.norm.running_mean.normal_()  # type: ignore[union-attr]
    return module


def archive(net: nn.Module, path: Path) -> Path:
    torch.export.save(
        torch.export.export(net, (torch.zeros(2, *SHAPE),), dynamic_shapes=({0: torch.export.Dim("n")},)), path
    )
    return path


def test_an_archive_trains_and_comes_back(net: Net, tmp_path: Path) -> None:
    opened = open_file(archive(net, tmp_path / "net.pt2"), SHAPE)
    layers = {
        name: type(layer).__name__
        for name, layer in opened.module.named_modules()
        if type(layer) is not nn.Module and name
    }
    assert layers == {"stem": "Conv2d", "norm": "BatchNorm2d", "again": "Conv2d", "head": "Linear"}
    x = torch.randn(5, *SHAPE)
    torch.testing.assert_close(opened.module.eval()(x), net(x))
    opened.module.train()(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in opened.module.parameters())
    assert not torch.equal(opened.module.get_submodule("norm").running_mean, net.norm.running_mean)  # type: ignore[arg-type]
    with torch.no_grad():
        opened.module.get_parameter("again.weight")[:, :2] = 0
    opened.save(opened.module, tmp_path / "saved.pt2", ".pt2")
    again = import_model(tmp_path / "saved.pt2")
    assert [taken.shape for taken in again.inputs] == [(1, *SHAPE)]
    torch.testing.assert_close(again.graph(x[:1])[0], opened.module.eval()(x[:1]))


def test_an_onnx_file_of_one_sample_trains_on_many(net: Net, tmp_path: Path) -> None:
    net.flat = True
    path = export(net, (torch.zeros(1, *SHAPE),), tmp_path / "net.onnx", dynamo=False, opset=17)
    changed = onnx.load(path)
    for names in (node.input for node in changed.graph.node):
        names[:] = ["photo" if name == changed.graph.input[0].name else name for name in names]
    changed.graph.input[0].name = "photo"
    onnx.save(changed, path)
    opened = open_file(path, SHAPE)
    x = torch.randn(3, *SHAPE)
    torch.testing.assert_close(opened.module.eval()(x), net(x), rtol=1e-4, atol=1e-5)
    opened.save(opened.module, tmp_path / "saved.onnx", ".onnx")
    assert onnx.load(tmp_path / "saved.onnx").graph.input[0].name == "photo"
    found = import_model(opened.imported(opened.module))
    assert ([taken.name for taken in found.inputs], found.outputs) == (["photo"], opened.outputs)
    torch.testing.assert_close(run_onnxruntime(tmp_path / "saved.onnx", (x[:1],))[0], net(x[:1]), rtol=1e-4, atol=1e-5)


def test_a_file_of_one_sample_of_one_channel_trains_on_many(tmp_path: Path) -> None:
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 7 * 6, 3))
    opened = open_file(
        export(layers, (torch.zeros(1, 1, 9, 8),), tmp_path / "net.onnx", dynamo=False, opset=17), (1, 9, 8)
    )
    x = torch.randn(3, 1, 9, 8)
    torch.testing.assert_close(opened.module.eval()(x), layers(x), rtol=1e-4, atol=1e-5)


def saved(proto: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(proto, folder / "net.onnx")
    return folder / "net.onnx"


def test_uneven_pooling_trains(tmp_path: Path) -> None:
    graph = (
        "net (float[N,3,9,8] x) => (float[N,K] y) { a = Conv(x, w) b = MaxPool<kernel_shape=[2,2], pads=[0,0,1,1], "
        "strides=[2,2]>(a) y = Flatten(b) }"
    )
    opened = open_file(saved(model(graph, {"w": weight(4, 3, 3, 3)}), tmp_path), SHAPE)
    opened.module(torch.randn(2, *SHAPE)).sum().backward()
    assert all(parameter.grad is not None for parameter in opened.module.parameters())


@pytest.mark.parametrize("sizes", [[1, -1], [2, 4 * 7 * 6]])
def test_a_number_of_samples_in_the_file_is_refused_in_a_line(sizes: list[int], tmp_path: Path) -> None:
    graph = (
        f"net (float[1,3,9,8] x) => (float[1,K] y) <int64[2] s = {{{sizes[0]}, {sizes[1]}}}> {{ a = Conv(x, w) b = "
        f"Reshape(a, s) y = MatMul(b, v) }}"
    )
    with pytest.raises(PccError, match="export it with a dynamic batch size") as caught:
        open_file(saved(model(graph, {"w": weight(4, 3, 3, 3), "v": weight(4 * 7 * 6, 5)}), tmp_path), SHAPE)
    assert "\n" not in str(caught.value)


def test_what_is_not_about_the_number_of_samples_says_so(tmp_path: Path) -> None:
    with pytest.raises(PccError, match=r"there is no such file$"):
        open_file(tmp_path / "missing.pt2", (3, 9, 8))
    onnx.save(model("net (float[N,3,9,8] x) => (float[N,3,9,8] y) { y = Frobnicate (x) }"), tmp_path / "net.onnx")
    with pytest.raises(PccError, match=r"Frobnicate .*or end it before\)$"):
        open_file(tmp_path / "net.onnx", (3, 9, 8))


def test_several_outputs_are_refused(tmp_path: Path) -> None:
    proto = model(
        "net (float[N,3,9,8] x) => (float[N,4,7,6] a, float[N,4,7,6] b) { a = Conv(x, w) b = Relu(a) }",
        {"w": weight(4, 3, 3, 3)},
    )
    with pytest.raises(PccError, match="1 inputs and 2 outputs"):
        open_file(saved(proto, tmp_path), SHAPE)
