"""Importing modules: the same numbers, the author's names, no trace of torch.export."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcc.errors import PccError
from pcc.frontend.torch_module import import_module
from pcc.ir.graph import OUTPUT_NAMES, layer_name, outputs, shape_of
from pcc.ir.verify import relative_error, run_graph
from tests.nets import NETS, Residual, make


@pytest.mark.parametrize("name", NETS)
def test_computes_what_the_module_computes(name: str) -> None:
    net, inputs = make(name)
    graph_module = import_module(net, inputs)
    result = net(*inputs)
    expected = tuple(result.values()) if isinstance(result, dict) else (result,)
    assert relative_error(run_graph(graph_module, inputs), expected) < 1e-6
    assert {node.op for node in graph_module.graph.nodes} == {"placeholder", "get_attr", "call_function", "output"}
    assert all("val" in node.meta for node in graph_module.graph.nodes if node.op != "output")


def test_names_are_the_authors() -> None:
    net, inputs = make("decoder")
    graph_module = import_module(net, inputs)
    assert [node.name for node in graph_module.graph.find_nodes(op="placeholder")] == ["x", "skip"]
    assert graph_module.meta[OUTPUT_NAMES] == ("mask", "scores")
    assert [node.name for node in outputs(graph_module).values()] == ["sigmoid", "log_softmax"]
    net, inputs = make("residual")
    graph_module = import_module(net, inputs)
    names = {node.name: node for node in graph_module.graph.nodes}
    assert layer_name(names["second_0_1"]) == "second.0.1"
    assert str(names["second_0_0_weight"].target) == "second.0.0.weight"
    assert shape_of(names["fc"]) == (2, 5)
    assert {name for name, _ in graph_module.named_buffers()} <= set(net.state_dict())


def test_nested_outputs_and_inputs_that_are_returned() -> None:
    class Nested(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, list[Tensor]]]:
            return x + 1, {"pair": [y, x * y]}

    inputs = (torch.randn(2, 3), torch.randn(3))
    graph_module = import_module(Nested(), inputs)
    assert graph_module.meta[OUTPUT_NAMES] == ("output_0", "output_1_pair_0", "output_1_pair_1")
    assert relative_error(run_graph(graph_module, inputs), (inputs[0] + 1, inputs[1], inputs[0] * inputs[1])) == 0


def test_in_place_updates_of_views_become_pure() -> None:
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 2
            F.relu_(y[:, :2])
            y += 1
            return y

    x = torch.randn(2, 4, 3)
    kept = x.clone()
    graph_module = import_module(InPlace(), (x,))
    assert relative_error(run_graph(graph_module, (x,)), (InPlace()(x),)) == 0
    assert torch.equal(x, kept)


def test_training_mode_comes_back_and_dropout_is_off() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.9), nn.BatchNorm1d(4))
    net[1].eval()
    x = torch.randn(5, 4)
    graph_module = import_module(net, (x,))
    assert [part.training for part in net.modules()] == [True, True, False, True]
    assert relative_error(run_graph(graph_module, (x,)), (net.eval()(x),)) < 1e-6


def test_channels_last_weights_and_constants() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.conv.weight.data = self.conv.weight.data.to(memory_format=torch.channels_last)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) * torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)

    net, x = Scaled(), torch.randn(1, 3, 5, 5)
    graph_module = import_module(net, (x,))
    assert all(buffer.is_contiguous() for _, buffer in graph_module.named_buffers())
    assert relative_error(run_graph(graph_module, (x,)), (net(x),)) < 1e-6


def test_unused_inputs_stay() -> None:
    class Ignores(nn.Module):
        def forward(self, x: Tensor, unused: Tensor) -> Tensor:
            return x * 2

    graph_module = import_module(Ignores(), (torch.ones(1), torch.ones(2)))
    assert [node.name for node in graph_module.graph.find_nodes(op="placeholder")] == ["x", "unused"]


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return x + self.seen


class Constant(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return x, 3


@pytest.mark.parametrize(
    ("net", "inputs", "words"),
    [
        (Counter(), (torch.ones(1),), "the model changes 'seen' when it runs"),
        (Constant(), (torch.ones(2),), "is not a tensor"),
        (nn.Linear(3, 3).double(), (torch.ones(2, 3),), r"'weight' is float64: pcc compiles fp32 models"),
        (
            nn.Conv2d(3, 3, 1).bfloat16(),
            (torch.ones(1, 3, 2, 2),),
            r"'weight' is bfloat16: pcc compiles fp32 models; call model.float\(\)",
        ),
        (nn.ReLU(), (torch.ones(2, 3).half(),), "input 0 is float16"),
        (nn.Conv2d(3, 4, 3), (torch.ones(1, 4, 8, 8),), "cannot export Conv2d"),
    ],
)
def test_what_cannot_be_imported_is_one_line(
    net: nn.Module, inputs: tuple[Tensor, ...], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PccError, match=words) as caught:
        import_module(net, inputs)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", ""), "torch.export said more than the error does"


def test_weights_that_are_not_finite() -> None:
    net = Residual()
    net.fc.weight.data[0, :2] = torch.nan
    nn.init.constant_(net.shortcut.bias, torch.inf)  # type: ignore[arg-type]
    with pytest.raises(PccError, match=r"shortcut.bias \(0 NaN, 16 Inf of 16\), fc.weight \(2 NaN, 0 Inf of 80\)"):
        import_module(net, (torch.ones(1, 3, 8, 8),))
