from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx import Node

from pcc.errors import PccError
from pcc.ir.annotations import annotation, annotations, skips
from pcc.ir.printer import print_graph
from pcc.ir.verify import verify_structure
from pcc.passes.prune_connectivity import PruneConnectivity
from pcc.passes.pruning import Pruned
from pcc.sparsity import connectivity, joint, pattern
from pcc.sparsity.budget import budget
from pcc.sparsity.kernels import Kernels
from tests.passes.prunable import convs, graph_of, mixed, output, run, weights

CUT = ("left", "right", "grouped", "expand", "wide", "dilated")


def cut_to(conv: Node) -> Kernels | None:
    """What pruning passes gave a convolution."""
    pruned = annotation(conv, Pruned)
    return pruned.structure if pruned else None  # type: ignore[return-value]


def connections(weight: Tensor) -> int:
    return int(np.count_nonzero(weight.numpy().any(axis=(2, 3))))


@pytest.mark.parametrize("scope", connectivity.SCOPES)
def test_every_layer_has_exactly_its_budget(scope: str):
    graph_module, x = mixed()
    dense = weights(graph_module)
    run(graph_module, f"prune-connectivity{{rate=2.5,scope={scope}}}")
    verify_structure(graph_module)
    for name, weight in weights(graph_module).items():
        filters, inputs = weight.shape[:2]
        kept = filters * budget(inputs, 2.5) if scope == "filter" else budget(filters * inputs, 2.5)
        assert connections(weight) == (kept if name in CUT else filters * inputs), name
        assert torch.equal(weight, torch.where(weight != 0, dense[name], 0))
        found = annotation(convs(graph_module)[name], Pruned)
        assert (found and found.structure) == (Kernels(None, 2.5, scope) if name in CUT else None)
    assert output(graph_module, x).isfinite().all()


def test_what_is_left_alone_says_why():
    graph_module, _ = mixed()
    run(graph_module, "prune-connectivity")
    reasons = {
        name: [str(skip) for skip in skips(conv) if skip.pass_name == "prune-connectivity"]
        for name, conv in convs(graph_module).items()
    }
    assert reasons == {
        **{name: [] for name in CUT},
        "stem": ["prune-connectivity: the first convolution is spared (spare_first=false prunes it too)"],
        "depthwise": [
            "prune-connectivity: depthwise: a filter has one connection, and the depthwise kernels are dense"
        ],
    }


def test_rates_of_single_layers_and_of_the_first():
    graph_module, _ = mixed()
    run(graph_module, "prune-connectivity{rate=4,layers={stem=1.5,expand=1,right=8}}")
    kept = {name: connections(weight) for name, weight in weights(graph_module).items()}
    assert kept == {
        "stem": 32,
        "left": 64,
        "right": 32,
        "grouped": 48,
        "expand": 24 * 32,
        "depthwise": 64,
        "wide": 320,
        "dilated": 60,
    }
    graph_module, _ = mixed()
    assert connections(weights(run(graph_module, "prune-connectivity{rate=4,spare_first=false}"))["stem"]) == 12


@pytest.mark.parametrize("share", [1, 2, 4])
@pytest.mark.parametrize("scope", connectivity.SCOPES)
@pytest.mark.parametrize("patterns", ["designed", "8"])
def test_both_prunings_in_either_order_are_the_joint_projection(share: int, scope: str, patterns: str):
    dense_graph, _ = mixed()
    dense = weights(dense_graph)
    by_pattern, by_links = (
        f"prune-pattern{{patterns={patterns}}}",
        f"prune-connectivity{{rate=3,scope={scope},share={share}}}",
    )
    earlier, later = (
        weights(run(mixed()[0], f"{first},{second}"))
        for first, second in ((by_pattern, by_links), (by_links, by_pattern))
    )
    names = [name for name, weight in dense.items() if weight.shape[2:] == (3, 3) and weight.shape[1] > 1]
    shapes = pattern.DESIGNED if patterns == "designed" else pattern.mine((dense[name].numpy() for name in names), 8)
    for name in dense:
        assert torch.equal(earlier[name], later[name]), name
    for name in ("left", "right", "dilated"):
        exact = joint.project(dense[name].numpy(), shapes, 3, scope=scope, share=share)
        assert np.array_equal(earlier[name], exact.weight), name


def test_fewer_filters_share_where_they_do_not_divide():
    graph_module, _ = mixed()
    run(graph_module, "prune-connectivity{share=4,layers={dilated=2}},prune-pattern{spare_first=false}")
    shares = {
        name: structure.share
        for name, conv in convs(graph_module).items()
        if (structure := cut_to(conv)) and structure.patterns
    }
    assert shares == {"stem": 1, "left": 4, "right": 4, "grouped": 4, "dilated": 4}
    odd, _ = graph_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 5, 3)), 1, 3, 12, 12)
    run(odd, "prune-connectivity{share=4}")
    assert [cut_to(conv).share for conv in list(convs(odd).values())[1:]] == [2, 1]  # type: ignore[union-attr]


def test_a_second_run_replaces_the_rate_of_the_first():
    twice = run(mixed()[0], "prune-pattern{spare_first=false},prune-connectivity{rate=8},prune-connectivity{rate=2}")
    once = run(mixed()[0], "prune-pattern{spare_first=false},prune-connectivity{rate=2}")
    for name, weight in weights(once).items():
        assert torch.equal(weight, weights(twice)[name]), name


def test_a_weight_changed_in_between_is_what_is_pruned():
    graph_module, _ = graph_of(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8)),
        1,
        3,
        12,
        12,
        pipeline="decompose,canonicalize",
    )
    run(graph_module, "prune-pattern{spare_first=false},fold-batchnorm,prune-connectivity{rate=2}")
    expected, _ = graph_of(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8)), 1, 3, 12, 12
    )
    run(expected, "prune-pattern{spare_first=false},prune-connectivity{rate=2}")
    # Scaling whole filters changes no connection's best pattern, so folding before or between gives the same weights up
    # to rounding.
    for name, weight in weights(expected).items():
        torch.testing.assert_close(weights(graph_module)[name], weight)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.again = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.again(torch.relu(self.again(self.stem(x))))


def test_a_module_called_twice_still_has_one_weight():
    graph_module, _ = graph_of(Twice(), 1, 3, 9, 9)
    run(graph_module, "prune-connectivity,prune-pattern{spare_first=false}")
    nodes = [node for node in graph_module.graph.nodes if str(node.target).startswith("again.weight")]
    assert len({node.target for node in nodes}) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.5}, "a rate of 0.5 is not possible: .* 1 or more"),
        ({"rate": float("nan")}, "a rate of nan is not possible"),
        ({"layers": {"left": 0.0}}, "a rate of 0 for layer left is not possible"),
        ({"layers": {"leftt": 2.0}}, "no layer that can be pruned is called 'leftt': did you mean left"),
        ({"layers": {"depthwise": 2.0}}, "layer depthwise cannot lose connections: depthwise"),
        ({"share": 3}, "groups of 1, 2, 4, not 3"),
        ({"scope": "model"}, "unknown scope 'model'"),
    ],
)
def test_wrong_use_is_one_line(options: dict[str, Any], message: str):
    graph_module, _ = mixed()
    with pytest.raises(PccError, match=message):
        PruneConnectivity(**options)(graph_module)


def test_the_annotation_says_how_much_is_left():
    graph_module, _ = mixed()
    run(graph_module, "prune-pattern{spare_first=false},prune-connectivity{rate=4,share=2}")
    texts = [str(entry) for entry in annotations(convs(graph_module)["left"])]
    assert texts[0].startswith("pruned(kernels{patterns=4x4, rate=4, share=2}, norm=")


def test_golden(golden: Callable[[str, str], None]):
    graph_module, _ = mixed()
    golden(print_graph(run(graph_module, "prune-connectivity{rate=3.6,scope=filter,share=2}")), "prune_connectivity")


def test_layers_with_fewer_connections_than_the_rate_are_left_alone():
    graph_module, _ = mixed()
    dense = weights(graph_module)
    run(graph_module, "prune-connectivity{rate=250}")
    pruned = weights(graph_module)
    assert torch.equal(pruned["dilated"], dense["dilated"])
    assert connections(pruned["left"]) == 1
    assert (
        str(skips(convs(graph_module)["dilated"])[-1])
        == "prune-connectivity: it has 240 connections, fewer than its rate of 250"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("rate=1e300", r"no layer can be pruned at a rate of 1e\+300: the largest, wide, has 1280 connections"),
        (
            "layers={right=257}",
            "layer right cannot lose connections: it has 256 connections, fewer than its rate of 257",
        ),
    ],
)
def test_rates_that_no_layer_has_connections_for(options: str, message: str):
    with pytest.raises(PccError, match=message):
        run(mixed()[0], f"prune-connectivity{{{options}}}")


def test_a_layer_that_loses_nothing_says_so():
    graph_module, _ = mixed()
    result = PruneConnectivity(rate=1)(graph_module)
    assert not result.modified
    reason = "prune-connectivity: its weights are as they were: nothing in them is more than the pass keeps"
    assert all(reason in map(str, skips(convs(graph_module)[name])) for name in CUT)
    assert PruneConnectivity(rate=1, layers={"left": 2})(graph_module).modified
