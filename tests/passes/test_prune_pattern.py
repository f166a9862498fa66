import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pcc.errors import PccError
from pcc.ir.annotations import annotation, skips
from pcc.ir.graph import constant
from pcc.ir.printer import print_graph
from pcc.ir.verify import verify_structure
from pcc.passes.prune_pattern import PrunePattern
from pcc.passes.pruning import Pruned
from pcc.sparsity import pattern
from pcc.sparsity.kernels import Kernels
from tests.passes.prunable import convs, mixed, output, run, weights
from tests.sparsity.weights import connections_with, cut_to_patterns

PATTERNED = ("stem", "left", "right", "grouped", "dilated")


def test_every_3x3_convolution_gets_the_nearest_designed_patterns():
    graph_module, x = mixed()
    dense = weights(graph_module)
    run(graph_module, "prune-pattern{spare_first=false}")
    verify_structure(graph_module)
    for name, weight in weights(graph_module).items():
        expected = cut_to_patterns(dense[name].numpy(), pattern.DESIGNED) if name in PATTERNED else dense[name].numpy()
        assert np.array_equal(weight, expected), name
    for name in PATTERNED:
        found = annotation(convs(graph_module)[name], Pruned)
        assert found is not None
        assert found.structure == Kernels(tuple(map(tuple, pattern.DESIGNED.tolist())))
    assert output(graph_module, x).isfinite().all()


def test_what_is_left_alone_says_why():
    graph_module, _ = mixed()
    run(graph_module, "prune-pattern{spare_first=false}")
    reasons = {
        name: [str(skip) for skip in skips(conv) if skip.pass_name == "prune-pattern"]
        for name, conv in convs(graph_module).items()
    }
    assert reasons == {
        **{name: [] for name in PATTERNED},
        "expand": ["prune-pattern: the patterns are for 3x3 connections, not 1x1"],
        "depthwise": ["prune-pattern: depthwise: a filter has one connection, and the depthwise kernels are dense"],
        "wide": ["prune-pattern: the patterns are for 3x3 connections, not 5x5"],
    }


@pytest.mark.parametrize("count", [4, 8, 12])
def test_mined_patterns_are_those_of_the_whole_model(count: int):
    graph_module, _ = mixed()
    mined = pattern.mine([weights(graph_module)[name].numpy() for name in PATTERNED], count)
    run(graph_module, f"prune-pattern{{spare_first=false,patterns={count}}}")
    assert len(mined) == count
    for name in PATTERNED:
        pruned = annotation(convs(graph_module)[name], Pruned)
        assert pruned.structure.patterns == tuple(map(tuple, mined.tolist()))  # type: ignore[union-attr]
    for name in PATTERNED:
        assert (
            connections_with(weights(graph_module)[name].numpy(), mined)
            == weights(graph_module)[name][:, :, 0, 0].numel()
        )


def test_adjacent_patterns_are_in_single_pieces():
    graph_module, _ = mixed()
    with torch.no_grad():
        for name in PATTERNED:  # the corners are largest, and no two of them touch
            weight = constant(convs(graph_module)[name].args[1])  # type: ignore[arg-type]
            weight[:, :, ::2, ::2] += 10
    dense = [weights(graph_module)[name].numpy() for name in PATTERNED]
    for adjacent in (False, True):
        pruned = copy.deepcopy(graph_module)
        run(pruned, f"prune-pattern{{spare_first=false,patterns=4,adjacent={str(adjacent).lower()}}}")
        mined = tuple(map(tuple, pattern.mine(dense, 4, adjacent).tolist()))
        assert ((2, 4, 6, 8) in mined) != adjacent
        for name in PATTERNED:
            found = annotation(convs(pruned)[name], Pruned)
            assert found
            assert isinstance(found.structure, Kernels)
            assert found.structure.patterns == mined


def test_only_the_layers_that_are_named():
    graph_module, _ = mixed()
    dense = weights(graph_module)
    run(graph_module, "prune-pattern{spare_first=false,layers=[left,grouped]}")
    changed = [name for name, weight in weights(graph_module).items() if not torch.equal(weight, dense[name])]
    assert changed == ["left", "grouped"]
    assert str(skips(convs(graph_module)["right"])[-1]) == "prune-pattern: not among the layers that were named"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ("lefft",)}, "no layer that can be pruned is called 'lefft': did you mean left"),
        ({"layers": ("expand",)}, "layer expand cannot take patterns: the patterns are for 3x3 connections, not 1x1"),
        ({"patterns": "3"}, r"patterns=3}: choose designed, or how many to mine, 4 to 12"),
        ({"patterns": "mined"}, "choose designed"),
        ({"adjacent": True}, "patterns that are mined"),
    ],
)
def test_wrong_use_is_one_line(options: dict[str, Any], message: str):
    graph_module, _ = mixed()
    with pytest.raises(PccError, match=message):
        PrunePattern(**options)(graph_module)


def test_the_source_module_keeps_its_weights():
    graph_module, _ = mixed()
    left = constant(convs(graph_module)["left"].args[1])  # type: ignore[arg-type]
    before = left.clone()
    run(graph_module, "prune-pattern{spare_first=false}")
    assert torch.equal(left, before)


def test_golden(golden: Callable[[str, str], None]):
    graph_module, _ = mixed()
    golden(print_graph(run(graph_module, "prune-pattern{spare_first=false,patterns=6}")), "prune_pattern")


def test_first_convolution_is_spared_unless_asked_for():
    for options, pruned in (("", False), ("{spare_first=false}", True), ("{layers=[stem]}", True)):
        graph_module, _ = mixed()
        run(graph_module, f"prune-pattern{options}")
        stem = convs(graph_module)["stem"]
        assert (annotation(stem, Pruned) is not None) == pruned
        assert any("the first convolution is spared" in str(skip) for skip in skips(stem)) != pruned
