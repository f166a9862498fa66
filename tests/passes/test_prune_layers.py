"""The passes that give layers one structure with a rate."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.fx import GraphModule, Node

from pcc.errors import PccError
from pcc.ir.annotations import annotation, skips
from pcc.ir.graph import arguments, constant, layer_name, shape_of
from pcc.ir.printer import print_graph
from pcc.ir.verify import relative_error, verify_structure
from pcc.passes.detect_structure import DetectStructure
from pcc.passes.pipeline import make_pass
from pcc.passes.pruning import Pruned, layer_weight
from pcc.passes.registry import pass_names
from pcc.sparsity.columns import Column
from pcc.sparsity.compose import Composition
from pcc.sparsity.filters import Channel, Filter
from pcc.sparsity.kernels import Kernels
from pcc.sparsity.structure import Structure
from pcc.sparsity.tetris import Tetris
from pcc.sparsity.unstructured import Unstructured
from tests.passes.prunable import graph_of, mixed, output, run

STRUCTURES: dict[str, Structure] = {
    "prune-unstructured": Unstructured(4),
    "prune-filters": Filter(2),
    "prune-channels": Channel(2),
    "prune-columns": Column(3),
    "prune-blocks": Tetris(2, (4, 4)),
}
OPTIONS = {"prune-unstructured": "rate=4", "prune-columns": "rate=3", "prune-blocks": "filters=4,channels=4"}


def layers(graph_module: GraphModule) -> dict[str, Node]:
    return {
        layer_name(node): node
        for node in graph_module.graph.nodes
        if hasattr(node.target, "_schema") and str(node.target) in LAYERS
    }


LAYERS = ("pcc.conv2d.default", "pcc.linear.default")


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_layer_gets_the_nearest_weight_of_the_structure(name: str) -> None:
    structure = STRUCTURES[name]
    graph_module, x = mixed()
    dense = {layer: layer_weight(node) for layer, node in layers(graph_module).items()}
    run(graph_module, f"{name}{{{OPTIONS.get(name, '')}}}")
    verify_structure(graph_module)
    assert output(graph_module, x).isfinite().all()
    left = {"stem": "the first convolution is spared", "depthwise": "depthwise: a filter has one connection"}
    if name == "prune-filters":
        tied = "its channels are added to those of"
        left |= {"right": tied, "stem": tied, "classifier": "it is an output of the model"}
    for layer, node in layers(graph_module).items():
        reasons = [skip.reason for skip in skips(node) if skip.pass_name == name]
        pruned = annotation(node, Pruned)
        if layer in left:
            assert re.match(left[layer], reasons[0])
            assert (pruned, layer_weight(node).all()) == (None, True)
        else:
            assert not reasons
            assert pruned is not None
            assert pruned.structure == structure
            groups = node.args[7] if layer == "grouped" else 1
            assert np.array_equal(layer_weight(node), structure.project(dense[layer], groups))  # type: ignore[arg-type]
            assert pruned.kept_norm == pytest.approx(
                np.square(layer_weight(node)).sum() / np.square(dense[layer]).sum(), rel=1e-5
            )


@pytest.mark.parametrize("name", STRUCTURES)
def test_golden(name: str, golden: Callable[[str, str], None]) -> None:
    graph_module, _ = mixed()
    golden(print_graph(run(graph_module, f"{name}{{{OPTIONS.get(name, '')}}}")), name.replace("-", "_"))


def test_every_pruning_pass_has_a_golden_text() -> None:
    assert {name for name in pass_names() if name.startswith("prune-")} == {
        *STRUCTURES,
        "prune-pattern",
        "prune-connectivity",
    }


def test_filters_and_channels_are_dropped_afterwards() -> None:
    graph_module, x = mixed()
    run(graph_module, "prune-filters{rate=2,multiple=8},prune-channels{layers={classifier=1,right=4}}")
    expected = output(graph_module, x)
    run(graph_module, "drop-filters")
    assert relative_error([output(graph_module, x)], [expected]) < 1e-5
    shapes = {layer: shape_of(node.args[1])[:2] for layer, node in layers(graph_module).items()}  # type: ignore[arg-type]
    assert shapes["left"] == (4, 16)  # what right reads
    assert (shapes["expand"][1], shapes["wide"]) == (
        8,
        (8, 26),
    )  # 4 of 12 channels of each group; what neither pass took


def test_structures_of_several_passes_are_projected_on_at_once() -> None:
    dense = {layer: layer_weight(node) for layer, node in layers(mixed()[0]).items()}
    for pipeline in (
        "prune-filters,prune-pattern,prune-connectivity{rate=2}",
        "prune-connectivity{rate=2},prune-pattern,prune-filters",
    ):
        graph_module, _ = mixed()
        node = layers(run(graph_module, pipeline))["left"]
        pruned = annotation(node, Pruned)
        assert pruned is not None
        assert isinstance(pruned.structure, Composition)
        filters, kernels = pruned.structure.parts
        assert isinstance(kernels, Kernels)
        assert (filters, str(kernels)) == (Filter(2), "kernels{patterns=4x4, rate=2}")
        assert np.array_equal(layer_weight(node), pruned.structure.project(dense["left"]))


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        (
            "prune-unstructured{rate=0.5}",
            "prune-unstructured: a rate of 0.5 is not possible: it is the factor by which weights become fewer",
        ),
        ("prune-filters{multiple=0}", "cannot be a multiple of 0"),
        ("prune-blocks{filters=0}", "0, 8"),
        ("prune-columns{rate=1e9}", "no layer can be pruned at a rate of 1e[+]09: the largest, .*, has .* columns"),
        ("prune-filters{layers={right=2}}", "layer right cannot lose filters: its channels are added to those of stem"),
        ("prune-channels{layers={expnd=2}}", "no layer that can be pruned is called 'expnd': did you mean expand"),
        (
            "prune-unstructured,prune-blocks{layers={left=2}}",
            "layer left cannot lose blocks: it has unstructured{rate=2}, which does not go with tetris",
        ),
    ],
)
def test_wrong_use_is_one_line(pipeline: str, message: str) -> None:
    with pytest.raises(PccError, match=message):
        run(mixed()[0], pipeline)


def test_detection_finds_what_pruning_made_and_changes_nothing(golden: Callable[[str, str], None]) -> None:
    graph_module, x = graph_of(
        nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 1)), 1, 3, 9, 9
    )
    run(graph_module, "prune-pattern,prune-unstructured{rate=4}")
    before = output(graph_module, x)
    result = DetectStructure()(graph_module)
    assert not result.modified
    assert output(graph_module, x).equal(before)
    golden(print_graph(graph_module), "detect_structure")
    found = {layer: str(annotation(node, Structure)) for layer, node in layers(graph_module).items()}
    assert found == {"0": "None", "1": "kernels{patterns=4x4}", "3": "unstructured{rate=4}"}
    reasons = [skip.reason for skip in skips(layers(graph_module)["1"])]
    assert reasons == ["it has kernels{patterns=4x4}, which does not go with unstructured{rate=4}"]
    assert make_pass("detect-structure", {}) == DetectStructure()


class Shortcut(nn.Module):
    """Two branches that are added up."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x) + self.second(x)


def test_biases_of_filters_that_stay_are_as_they_were() -> None:
    """A filter of zeros is not taken away where a shortcut needs its channel."""
    module = Shortcut()
    graph_module, _ = graph_of(module, 1, 4, 8, 8)
    run(graph_module, "prune-connectivity{rate=8,spare_first=false},prune-filters{rate=1,spare_first=false}")
    found = layers(graph_module)
    assert not layer_weight(found["first"]).any(axis=(1, 2, 3)).all()
    for name, node in found.items():
        torch.testing.assert_close(constant(arguments(node)["bias"]), module.get_submodule(name).get_parameter("bias"))
