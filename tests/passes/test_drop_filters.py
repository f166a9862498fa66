from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx import GraphModule

from pcc.frontend.torch_module import import_module
from pcc.ir.annotations import Dropped, annotation, skips
from pcc.ir.graph import shape_of
from pcc.ir.ops import LINEAR
from pcc.ir.printer import print_graph
from pcc.ir.verify import relative_error, verify_structure
from pcc.sparsity.detect import detect_structure
from pcc.sparsity.kernels import Kernels
from tests.passes.prunable import Mixed, convs, output, run, weights

BEFORE = "decompose,canonicalize,fold-constants,fold-batchnorm"


class Block(nn.Module):
    """(N, 3, 9, 7) to (N, 5): a stem and a block with a depthwise convolution in it, whose result is added to the stem's and set beside it."""

    def __init__(self, activation: Callable[[Tensor], Tensor] = torch.relu) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.expand = nn.Conv2d(8, 12, 1)
        self.depthwise = nn.Conv2d(12, 24, 3, padding=1, groups=12)
        self.project = nn.Conv2d(24, 8, 1)
        self.last = nn.Conv2d(16, 6, 3, stride=2)
        self.classifier = nn.Linear(6 * 4 * 3, 5)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        y = self.project(torch.relu(self.depthwise(self.activation(self.expand(x)))))
        x = torch.relu(self.last(torch.cat([x + y, x], 1)))
        return self.classifier(torch.flatten(x, 1))


def block(activation: Callable[[Tensor], Tensor] = torch.relu) -> Block:
    torch.manual_seed(0)
    module = Block(activation).eval()
    for value in (module.norm.weight, module.norm.bias, module.norm.running_mean, module.norm.running_var):
        nn.init.uniform_(value, 0.5, 1.5)  # type: ignore[arg-type]
    return module


def kill(layer: nn.Conv2d | nn.Linear, *filters: int) -> None:
    """Makes filters dead, their biases too."""
    layer.weight.data[list(filters)] = 0
    if layer.bias is not None:
        layer.bias.data[list(filters)] = 0


def dropped(module: nn.Module, *shape: int, pipeline: str = BEFORE) -> GraphModule:
    """The graph after the pass, which computes what it did before."""
    x = torch.randn(shape or (2, 3, 9, 7), generator=torch.Generator().manual_seed(1))
    graph_module = run(import_module(module, (x,)), pipeline)
    expected = output(graph_module, x)
    run(graph_module, "drop-filters")
    verify_structure(graph_module)
    assert relative_error([output(graph_module, x)], [expected]) < 1e-5
    return graph_module


def sizes(graph_module: GraphModule) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape[:2]) for name, weight in weights(graph_module).items()}


DENSE = {"stem": (8, 3), "expand": (12, 8), "depthwise": (24, 1), "project": (8, 24), "last": (6, 16)}


def test_a_network_without_dead_filters_stays_as_it_is() -> None:
    graph_module = dropped(block())
    assert sizes(graph_module) == DENSE
    assert "dropped" not in print_graph(graph_module)


def test_dead_filters_go_through_a_depthwise_convolution() -> None:
    module = block()
    kill(module.expand, 1, 5, 6)
    kill(module.depthwise, *range(10, 14))  # both filters of channels 5 and 6: they have no bias now, and read nothing
    graph_module = dropped(module)
    # Channel 1 stays: its depthwise filters, whose biases are not zero, make constants of it.
    assert sizes(graph_module) == DENSE | {"expand": (10, 8), "depthwise": (20, 1), "project": (8, 20)}
    nodes = convs(graph_module)
    assert str(annotation(nodes["expand"], Dropped)) == "dropped(filters=2,channels=0)"
    assert str(annotation(nodes["project"], Dropped)) == "dropped(filters=0,channels=4)"
    assert "1 of 10 filters are dead, but their channels go with others that are needed" in [skip.reason for skip in skips(nodes["expand"])]


def test_a_filter_that_nobody_reads_goes_with_all_that_leads_to_it() -> None:
    module = block()
    module.last.weight.data[:, [2, 10]] = 0  # channel 2 of the sum, and of the stem,
    module.expand.weight.data[:, 2] = 0  # which the block does not read either
    graph_module = dropped(module)
    assert sizes(graph_module) == DENSE | {"stem": (7, 3), "expand": (12, 7), "project": (7, 24), "last": (6, 14)}


def test_what_is_added_to_something_needed_stays() -> None:
    module = block()
    kill(module.project, 3)
    graph_module = dropped(module)
    assert sizes(graph_module) == DENSE
    assert [skip.reason for skip in skips(convs(graph_module)["project"])] == ["1 of 8 filters are dead, but their channels go with others that are needed"]


def test_flattened_maps_go_with_their_filter() -> None:
    module = block()
    kill(module.last, 0, 4)
    graph_module = dropped(module)
    (classifier,) = graph_module.graph.find_nodes(op="call_function", target=LINEAR)
    assert sizes(graph_module)["last"] == (4, 16)
    assert shape_of(classifier.args[1]) == (5, 4 * 12)
    assert annotation(classifier, Dropped) == Dropped(0, 24)


@pytest.mark.parametrize("why", ["bias", "sigmoid", "batch norm"])
def test_constants_stay(why: str) -> None:
    module = block(torch.sigmoid if why == "sigmoid" else torch.relu)
    if why == "batch norm":
        module.stem.weight.data[2] = 0
    else:
        kill(module.expand, 2)
        kill(module.depthwise, 4, 5)
        module.depthwise.weight.data[4:6] = 1
        if why == "bias":
            module.expand.bias.data[2] = 1  # type: ignore[union-attr]
    graph_module = dropped(module)
    assert sizes(graph_module) == DENSE
    name, reason = {
        "bias": ("expand", "1 of 12 filters are dead, but their bias or activation makes them constants"),
        "sigmoid": ("expand", "1 of 12 filters are dead, but their channels go with others that are needed"),
        "batch norm": ("stem", "1 of 8 filters are dead, but their bias or activation makes them constants"),
    }[why]
    assert reason in [skip.reason for skip in skips(convs(graph_module)[name])]


@pytest.mark.parametrize("fused", [False, True])
def test_constants_that_are_added_need_their_channels(fused: bool) -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1)
            self.shift = nn.Parameter(torch.randn(1, 6, 5, 5))

        def forward(self, x: Tensor) -> Tensor:
            return self.second(torch.relu(self.first(x) + self.shift)).flatten()[3:]

    torch.manual_seed(0)
    module = Shifted().eval()
    kill(module.first, 2, 3)
    module.second.weight.data[:, 4:] = 0
    graph_module = dropped(module, 1, 3, 5, 5, pipeline=BEFORE + ",fuse-epilogues" if fused else BEFORE)
    assert sizes(graph_module) == {"first": (6, 3) if fused else (4, 3), "second": (4, 6) if fused else (4, 4)}


def test_layers_that_share_a_weight_keep_it() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.conv(torch.relu(self.conv(x))))

    torch.manual_seed(0)
    module = Twice().eval()
    kill(module.conv, 1)
    graph_module = dropped(module, 1, 4, 6, 6)
    assert set(sizes(graph_module).values()) == {(4, 4)}
    (reason,) = {skip.reason for conv in convs(graph_module).values() for skip in skips(conv)}
    assert reason == "1 of 4 filters are dead, but another layer has the same weights"


def test_a_layer_keeps_a_filter() -> None:
    module = block()
    kill(module.expand, *range(12))
    kill(module.depthwise, *range(24))
    assert sizes(dropped(module)) == DENSE | {"expand": (1, 8), "depthwise": (1, 1), "project": (8, 1)}


def test_filters_that_share_kernels_stay_in_groups() -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 8, 3)
    module = nn.Sequential(layers[0], nn.ReLU(), layers[1]).eval()
    first, second = (layer.weight for layer in layers)
    first.data = torch.from_numpy(Kernels("designed", 2, share=4).project(first.detach().numpy()))
    assert getattr(detect_structure(first.detach().numpy()), "group", 1) == 4
    alike = (first != 0).flatten(1)
    group = [filter_ for filter_ in range(16) if alike[filter_].equal(alike[0])]
    second.data[:, [*group, next(filter_ for filter_ in range(16) if filter_ not in group)]] = 0
    graph_module = dropped(module, 1, 8, 6, 6)
    shrunk = weights(graph_module)["0"].numpy()
    assert getattr(detect_structure(shrunk), "group", 1) == 4
    assert len(group) == 4
    assert len(shrunk) == weights(graph_module)["2"].shape[1] == 12


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_any_zeros_anywhere(data: st.DataObject) -> None:
    """Filters, channels and biases of all layers of a network with every kind of convolution."""
    torch.manual_seed(0)
    module = Mixed().eval()
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            filters, channels = layer.weight.shape[:2]
            layer.weight.data[data.draw(st.lists(st.integers(0, filters - 1)))] = 0
            layer.weight.data[:, data.draw(st.lists(st.integers(0, channels - 1)))] = 0
            if layer.bias is not None and data.draw(st.booleans()):
                layer.bias.data[:] = 0
    graph_module = dropped(module, 2, 3, 18, 22)
    before = print_graph(graph_module)
    assert print_graph(run(graph_module, "drop-filters")) == before
