"""Annotations: one of each type, shared with nobody, carried through rewrites."""

import copy

import torch
from torch.fx import Graph, GraphModule, Node

from pcc.ir.annotations import (
    FilterOrder,
    KernelChoice,
    Rejected,
    Skipped,
    annotate,
    annotation,
    annotations,
    carry,
    forget,
    skips,
)
from pcc.sparsity.kernels import Kernels
from pcc.sparsity.structure import Structure
from pcc.sparsity.unstructured import Unstructured

PATTERN = Kernels(((0, 1, 3, 4), (1, 2, 4, 5)), 2.4, share=2)


def two_nodes() -> tuple[Graph, Node, Node]:
    graph = Graph()
    x = graph.placeholder("x")
    first, second = graph.call_function(torch.relu, (x,)), graph.call_function(torch.relu, (x,))
    graph.output((first, second))
    return graph, first, second


def test_one_of_each_type_and_found_by_base_class() -> None:
    _, node, _ = two_nodes()
    assert annotation(node, KernelChoice) is None
    annotate(node, KernelChoice("conv-dense", "tile", 2.0))
    annotate(node, KernelChoice("conv-sparse-gather", "tile", 1.0))
    annotate(node, PATTERN)
    assert annotation(node, KernelChoice) == KernelChoice("conv-sparse-gather", "tile", 1.0)
    assert annotation(node, Structure) == PATTERN
    assert annotations(node) == (KernelChoice("conv-sparse-gather", "tile", 1.0), PATTERN)


def test_skips_are_a_list_with_one_entry_a_pass() -> None:
    _, node, _ = two_nodes()
    annotate(node, Skipped("prune-pattern", "the window is 1x1"))
    annotate(node, Skipped("reorder-kernels", "depthwise"))
    annotate(node, Skipped("prune-pattern", "first layer"))
    assert [str(skip) for skip in skips(node)] == ["reorder-kernels: depthwise", "prune-pattern: first layer"]
    assert annotations(node) == ()


def test_copies_of_a_graph_do_not_share_annotations() -> None:
    graph, node, _ = two_nodes()
    annotate(node, PATTERN)
    module = GraphModule(torch.nn.Module(), graph)
    copied = copy.deepcopy(module)
    twin = next(other for other in copied.graph.nodes if other.name == node.name)
    annotate(twin, Unstructured(2))
    forget(twin, Kernels)
    assert (annotation(node, Unstructured), annotation(node, Kernels)) == (None, PATTERN)
    assert (annotation(twin, Unstructured), annotation(twin, Kernels)) == (Unstructured(2), None)


def test_carry_keeps_what_the_new_node_knows_better() -> None:
    _, old, new = two_nodes()
    old.meta["stack_trace"] = 'File "model.py", line 3'
    annotate(old, PATTERN)
    annotate(old, KernelChoice("old", None, 1.0))
    annotate(old, Skipped("a", "old reason"))
    annotate(old, Skipped("b", "kept"))
    annotate(new, KernelChoice("new", None, 1.0))
    annotate(new, Skipped("a", "new reason"))
    carry(old, new)
    assert annotation(new, KernelChoice) == KernelChoice("new", None, 1.0)
    assert annotation(new, Kernels) == PATTERN
    assert [str(skip) for skip in skips(new)] == ["a: new reason", "b: kept"]
    assert new.meta["stack_trace"] == 'File "model.py", line 3'
    assert annotation(old, KernelChoice) == KernelChoice("old", None, 1.0)


def test_carry_from_an_unannotated_node_keeps_skips() -> None:
    _, old, new = two_nodes()
    annotate(new, Skipped("a", "reason"))
    carry(old, new)
    assert [str(skip) for skip in skips(new)] == ["a: reason"]


def test_texts_for_dumps() -> None:
    assert str(PATTERN) == "kernels{patterns=2x4, rate=2.4, share=2}"
    assert str(FilterOrder((0, 2, 1))) == "order(moved=2/3)"
    rejected = (Rejected("b", 150.0), Rejected("c", None, "groups=32"), Rejected("d", None, "groups=32"))
    assert str(KernelChoice("a", "tiles of 3x7", 100.0, rejected)) == "kernel(a, tiles of 3x7; b 1.50x; groups=32)"
