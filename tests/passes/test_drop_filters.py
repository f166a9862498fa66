from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx import GraphModule

from pcc.frontend.torch_module import import_module
from pcc.ir.annotations import Dropped, annotation, skips
from pcc.ir.counts import count_all
from pcc.ir.graph import layer_name, shape_of
from pcc.ir.ops import CONV2D, LINEAR
from pcc.ir.printer import print_graph
from pcc.ir.verify import relative_error, verify_structure
from pcc.passes.drop_filters import feeders
from pcc.sparsity.kernels import Kernels
from tests.passes.prunable import Mixed, convs, output, run, weights

BEFORE = "decompose,canonicalize,fold-constants,fold-batchnorm"


class Block(nn.Module):
    """(N, 3, 9, 7) to (N, 5): a stem and a block with a depthwise convolution in it, whose result is added to the
    stem's and set beside it."""

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
    module.depthwise.bias.data[2:4] = 1  # type: ignore[union-attr]
    kill(module.depthwise, *range(10, 14))  # both filters of channels 5 and 6: they have no bias now, and read nothing
    graph_module = dropped(module)
    # The depthwise filters of channel 1, whose biases are positive, make constants of it: they go into the biases of
    # the projection.
    assert sizes(graph_module) == DENSE | {"expand": (9, 8), "depthwise": (18, 1), "project": (8, 18)}
    nodes = convs(graph_module)
    assert str(annotation(nodes["expand"], Dropped)) == "dropped(filters=3,channels=0)"
    assert str(annotation(nodes["project"], Dropped)) == "dropped(filters=0,channels=6)"


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
    assert [skip.reason for skip in skips(convs(graph_module)["project"])] == [
        "1 of 8 filters are dead, but their channels go with others that are needed"
    ]


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
        "bias": (
            "expand",
            "1 of 12 filters are dead, but their bias or activation makes them constants, of which depthwise would "
            "read less at its padding",
        ),
        "sigmoid": (
            "expand",
            "1 of 12 filters are dead, but their bias or activation makes them constants, of which depthwise would "
            "read less at its padding",
        ),
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


class Twice(nn.Module):
    """(1, 4, 6, 6) to (1, 3, 6, 6); one convolution is called in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.conv(torch.relu(self.conv(x)))))


def shapes(graph_module: GraphModule) -> list[tuple[int, ...]]:
    """Filters and channels of all convolutions, in order."""
    return [shape_of(conv.args[1])[:2] for conv in graph_module.graph.find_nodes(op="call_function", target=CONV2D)]  # type: ignore[arg-type]


def test_a_layer_that_is_called_twice_changes_in_each_place_alone() -> None:
    torch.manual_seed(0)
    module = Twice().eval()
    kill(module.conv, 1)
    assert shapes(dropped(module, 1, 4, 6, 6)) == [(3, 4), (3, 3), (3, 3)]


def test_places_that_change_alike_share_their_weights_again() -> None:
    class Heads(nn.Module):
        """One head for two maps, as detectors have it."""

        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.last = nn.Conv2d(4, 8, 3), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.last(torch.relu(self.hidden(x))), self.last(torch.relu(self.hidden(x[:, :, ::2])))

    torch.manual_seed(0)
    module = Heads().eval()
    kill(module.hidden, 2, 3, 7)
    graph_module = dropped(module, 1, 4, 9, 6)
    assert shapes(graph_module) == [(5, 4), (2, 5)] * 2
    assert {name: tuple(value.shape) for name, value in graph_module.named_buffers()} == {
        "hidden.weight": (5, 4, 3, 3),
        "hidden.bias": (5,),
        "last.weight": (2, 5, 1, 1),
        "last.bias": (2,),
    }


def test_equal_biases_that_are_stored_once_stop_nothing() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 8),
        nn.ReLU(),
        nn.Linear(8, 8),
    )
    for layer in (module[0], module[2], module[5], module[7]):
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    for place, filters in ((0, (1, 2)), (2, (0, 5, 7)), (5, (3,))):
        kill(module[place], *filters)  # type: ignore[arg-type]
    graph_module = dropped(module.eval(), 1, 8, 6, 5)
    assert shapes(graph_module) == [(6, 8), (5, 6)]
    linear = graph_module.graph.find_nodes(op="call_function", target=LINEAR)
    assert [shape_of(node.args[1]) for node in linear] == [(7, 10), (8, 7)]
    assert count_all(graph_module).macs == 6 * 8 * 9 * 12 + 5 * 6 * 9 * 2 + 7 * 10 + 8 * 7


@pytest.mark.parametrize(
    ("activation", "bias", "padding", "goes"),
    [
        (nn.ReLU(), -0.5, 1, True),
        (nn.ReLU(), 0.0, 1, True),
        (nn.ReLU(), 0.5, 1, False),
        (nn.ReLU(), 0.5, 0, True),
        (nn.ReLU6(), -0.5, 1, True),
        (nn.Hardtanh(-1.0, 1.0), -0.5, 1, False),
        (nn.Hardtanh(-1.0, 1.0), -0.5, 0, True),
        (nn.Hardsigmoid(), -4.0, 1, True),
        (nn.Hardswish(), -4.0, 1, True),
        (nn.Sigmoid(), 0.0, 0, True),
        (nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.ReLU()), -0.5, 1, True),
        (nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.ReLU()), -0.5, 1, False),
        (nn.AvgPool2d(3, 1, 1), -0.5, 0, False),
        (nn.AvgPool2d(3, 1, 1, count_include_pad=False), -0.5, 0, True),
        (nn.AvgPool2d(2), -0.5, 0, True),
        (nn.Upsample(scale_factor=2.0, mode="bilinear"), -0.5, 0, True),
        (nn.Sequential(nn.ReLU(), nn.AvgPool2d(3, 1, 1)), -0.5, 1, True),
        (nn.Sequential(nn.ZeroPad2d(1), nn.ReLU()), -0.5, 0, False),
        (nn.Sequential(nn.ZeroPad2d((1, 0, 0, 0)), nn.ReLU(), nn.Sigmoid()), 0.0, 0, True),
    ],
)
@pytest.mark.parametrize("fused", [False, True])
def test_a_number_goes_into_the_bias_of_what_reads_it_and_zero_anywhere(
    activation: nn.Module, bias: float, padding: int, goes: bool, fused: bool
) -> None:
    """What a batch norm with scale 0 leaves of a filter; a reader that pads with zeros reads less of a number at the
    border."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        activation,
        nn.Conv2d(6, 4, 3, padding=padding, bias=bias != -0.5),
    ).eval()
    module[1].weight.data[2], module[1].bias.data[2] = 0, bias  # type: ignore[index]
    graph_module = dropped(module, 1, 3, 9, 9, pipeline=BEFORE + ",fuse-epilogues" if fused else BEFORE)
    assert shapes(graph_module) == ([(5, 3), (4, 5)] if goes else [(6, 3), (4, 6)])
    if not goes:
        reason = "1 of 6 filters are dead, but their bias or activation makes them constants"
        assert any(skip.reason.startswith(reason) for skip in skips(convs(graph_module)["0"]))


@pytest.mark.parametrize("bias", [-0.5, 0.5])
def test_neurons_of_linear_layers_go_too(bias: float) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4)).eval()
    module[1].weight.data[2], module[1].bias.data[2] = 0, bias  # type: ignore[index]
    graph_module = dropped(module, 2, 5)
    first, second = graph_module.graph.find_nodes(op="call_function", target=LINEAR)
    assert [shape_of(node.args[1]) for node in (first, second)] == [(5, 5), (4, 5)]
    assert not skips(first)


def test_a_layer_keeps_a_filter() -> None:
    module = block()
    kill(module.expand, *range(12))
    kill(module.depthwise, *range(24))
    assert sizes(dropped(module)) == DENSE | {"expand": (1, 8), "depthwise": (1, 1), "project": (8, 1)}


def test_filters_that_share_connections_stay_in_groups() -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 8, 3)
    module = nn.Sequential(layers[0], nn.ReLU(), layers[1]).eval()
    first, second = (layer.weight for layer in layers)
    first.data = torch.from_numpy(Kernels("designed", 2, share=4).project(first.detach().numpy()))
    assert getattr(Kernels.detect(first.detach().numpy()), "share", 1) == 4
    alike = (first != 0).flatten(1)
    group = [filter_ for filter_ in range(16) if alike[filter_].equal(alike[0])]
    second.data[:, [*group, next(filter_ for filter_ in range(16) if filter_ not in group)]] = 0
    graph_module = dropped(module, 1, 8, 6, 6)
    shrunk = weights(graph_module)["0"].numpy()
    assert getattr(Kernels.detect(shrunk), "share", 1) == 4
    assert len(group) == 4
    assert len(shrunk) == weights(graph_module)["2"].shape[1] == 12


class Steps(nn.Module):
    """(1, 4, 6, 6) to (1, 3, ...): two convolutions, of 8 and 3 filters, and what is done in between."""

    def __init__(self, step: Callable[[Tensor], Tensor], channels: int, layer: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.last, self.step = nn.Conv2d(4, 8, 1), nn.Conv2d(channels, 3, 1), step
        self.layer = nn.Identity() if layer is None else layer

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(self.step(torch.relu(self.first(x)))))


def halves(x: Tensor) -> Tensor:
    """A split, of which one part is computed with."""
    left, right = x.chunk(2, 1)
    return torch.cat([right, torch.tanh(left)], 1)


def channel_shuffle(x: Tensor) -> Tensor:
    return x.reshape(1, 2, 4, 6, 6).transpose(1, 2).reshape(1, 8, 6, 6)


@pytest.mark.parametrize(
    ("step", "layer", "dead", "left"),
    [
        (halves, None, (1, 2, 6), 5),
        (lambda x: x[:, 2:7], None, (0, 2, 6), 3),  # what nobody reads goes, too
        (lambda x: x[:, ::2], None, (0, 1, 2), 8),
        (lambda x: nn.functional.pad(x, (0, 0, 0, 0, 1, 2)), None, (3,), 7),
        (lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)), None, (3,), 7),
        (lambda x: x * torch.sigmoid(x.mean(1, keepdim=True)), None, (3,), 8),
        (channel_shuffle, None, (1, 5), 6),  # a column of the 2 x 4 that are shuffled
        (channel_shuffle, None, (0, 1, 2, 3), 4),
        (channel_shuffle, None, (1, 6), 8),
        (lambda x: nn.functional.pixel_shuffle(x, 2), None, (0, 1, 2, 3), 4),
        (lambda x: nn.functional.pixel_shuffle(x, 2), None, (1, 2, 3), 8),
        (lambda x: nn.functional.pixel_unshuffle(x, 2), None, (1, 2, 3), 5),
        (lambda x: x.flatten(2).transpose(1, 2).transpose(1, 2).unflatten(2, (6, 6)), None, (2, 3), 6),
        (
            lambda x: x,
            nn.Conv2d(8, 6, 3, groups=2, padding=1),
            (1, 2, 6),
            6,
        ),  # one from each group, and one of 2 and 1 stays
        (lambda x: x, nn.Conv2d(8, 6, 3, groups=2, padding=1), (1, 2, 3), 8),
        (lambda x: x, nn.ConvTranspose2d(8, 6, 3, stride=2), (1, 2, 6), 5),
        (lambda x: x, nn.ConvTranspose2d(8, 6, 2, stride=2), (1, 2, 6), 5),
        (lambda x: torch.cat([x, x], 2), None, (1,), 7),
    ],
)
def test_channels_go_through_whatever_moves_them(
    step: Callable[[Tensor], Tensor], layer: nn.Module | None, dead: tuple[int, ...], left: int
) -> None:
    torch.manual_seed(0)
    x = torch.zeros(1, 8, 6, 6)
    module = Steps(step, (nn.Identity() if layer is None else layer)(step(x)).shape[1], layer).eval()
    kill(module.first, *dead)
    assert sizes(dropped(module, 1, 4, 6, 6))["first"] == (left, 4)


def test_filters_of_grouped_and_transposed_convolutions_go() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(4, 8, 1),
        nn.Conv2d(8, 12, 3, groups=4),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 6, 2, stride=2),
        nn.Conv2d(6, 2, 1),
    ).eval()
    grouped, transposed = module[1], module[3]
    assert isinstance(grouped, nn.Conv2d)
    assert isinstance(transposed, nn.ConvTranspose2d)
    kill(
        grouped, 0, 3, 4, 5, 8, 9, 10, 11
    )  # one of the first group, the second whole, one of the third, two of the fourth
    transposed.weight.data[:, [2, 5]] = 0
    transposed.bias.data[[2, 5]] = 0  # type: ignore[union-attr]
    graph_module = dropped(module, 1, 4, 7, 7)
    assert shapes(graph_module) == [(4, 4), (4, 2), (16, 4), (2, 4)]
    assert [conv.args[7] for conv in graph_module.graph.find_nodes(op="call_function", target=CONV2D)] == [1, 2, 1, 1]


@settings(max_examples=12)
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
            if layer.bias is not None:
                layer.bias.data *= data.draw(st.sampled_from([1, 0, -1]))
    graph_module = dropped(module, 2, 3, 18, 22)
    before = print_graph(graph_module)
    assert print_graph(run(graph_module, "drop-filters")) == before


def test_golden(golden: Callable[[str, str], None]) -> None:
    """Dead filters behind a shortcut, through a depthwise convolution and into a classifier; one that is a constant
    goes into biases."""
    module = block()
    kill(module.expand, 1, 5, 6)
    kill(module.depthwise, *range(10, 14))
    module.depthwise.bias.data[2:4] = 1  # type: ignore[union-attr]
    kill(module.last, 0, 4)
    graph_module = run(import_module(module, (torch.zeros(2, 3, 9, 7),)), BEFORE)
    before = print_graph(graph_module)
    golden(
        f"// before drop-filters\n{before}\n// after drop-filters\n{print_graph(run(graph_module, 'drop-filters'))}",
        "drop_filters",
    )


class Calls(nn.Module):
    """(2, 4, 7, 5) to (2, 3): calls of three convolutions, each in any number of places, all with the same bias; then a
    classifier."""

    def __init__(self, order: list[int]) -> None:
        super().__init__()
        self.order = order
        self.convs = nn.ModuleList(
            [nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1, groups=4)]
        )
        self.classifier = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        for place in self.order:
            x = torch.relu(self.convs[place](x))
        return self.classifier(x.mean((2, 3)))


@settings(max_examples=15)
@given(st.data())
def test_any_zeros_in_layers_that_are_shared(data: st.DataObject) -> None:
    """drop-filters, and reorder-kernels after it, change each place for itself."""
    torch.manual_seed(0)
    module = Calls(data.draw(st.lists(st.integers(0, 2), min_size=2, max_size=5))).eval()
    bias = torch.tensor(data.draw(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=4, max_size=4)))
    for conv in module.convs:
        assert isinstance(conv, nn.Conv2d)
        conv.weight.data[data.draw(st.lists(st.integers(0, 3), max_size=3))] = 0
        conv.weight.data[:, data.draw(st.lists(st.integers(0, conv.weight.shape[1] - 1), max_size=2))] = 0
        conv.bias.data[:] = bias  # type: ignore[union-attr]
    graph_module = dropped(module, 2, 4, 7, 5)
    x = torch.randn(2, 4, 7, 5, generator=torch.Generator().manual_seed(2))
    expected = output(graph_module, x)
    run(graph_module, "fuse-epilogues,drop-filters,reorder-kernels")
    verify_structure(graph_module)
    torch.testing.assert_close(output(graph_module, x), expected, rtol=1e-5, atol=1e-5)


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Hardsigmoid(),
        nn.Conv2d(8, 6, 1),
        nn.ReLU(),
        nn.Conv2d(6, 5, 3),
    ).eval()


def test_layers_that_feed_one_layer_alone() -> None:
    x = torch.randn(2, 3, 9, 7, generator=torch.Generator().manual_seed(1))
    found = feeders(run(import_module(chain(), (x,)), BEFORE))
    names = {layer_name(layer): [layer_name(each) for each in behind] for layer, behind in found.items()}
    assert names == {"4": ["0", "2"], "6": ["4"]}
    module = chain()
    module.get_parameter("4.weight").data[:, [1, 5, 6]] = 0
    assert sizes(dropped(module)) == {"0": (5, 3), "2": (5, 1), "4": (6, 5), "6": (5, 6)}
    shared = {layer_name(layer) for layer in feeders(run(import_module(block(), (x,)), BEFORE))}
    assert shared == set()  # shortcuts, a concatenation, positions in a row, two channels of one filter
