"""The verifier finds what is wrong with a graph, and says where."""

import pytest
import torch
from torch.fx import GraphModule

from pcc.errors import PccError
from pcc.frontend.torch_module import import_module
from pcc.ir.graph import OUTPUT_NAMES, constant
from pcc.ir.verify import relative_error, run_graph, verify_structure
from pcc.passes.canonicalize import Canonicalize
from tests.nets import NETS, make
from tests.passes.find import call, calls


@pytest.fixture
def graph_module() -> GraphModule:
    net, inputs = make("shuffle")
    graph_module = import_module(net, inputs)
    Canonicalize()(graph_module)
    return graph_module


@pytest.mark.parametrize("name", NETS)
def test_imported_and_canonical_graphs_are_well_formed(name: str) -> None:
    net, inputs = make(name)
    graph_module = import_module(net, inputs)
    verify_structure(graph_module)
    Canonicalize()(graph_module)
    verify_structure(graph_module)


def test_wrong_shape(graph_module: GraphModule) -> None:
    node = call(graph_module, "pcc.conv2d")
    node.meta["val"] = node.meta["val"].new_empty(1, 2, 3, 4)
    with pytest.raises(
        PccError,
        match=rf"node {node.name}: recorded as float32\[1, 2, 3, 4\], pcc.conv2d.default gives float32\[3, 4, 5, 1\]",
    ):
        verify_structure(graph_module)


def test_argument_that_does_not_fit(graph_module: GraphModule) -> None:
    node = call(graph_module, "pcc.conv2d")
    node.update_arg(7, 1)
    with pytest.raises(PccError, match=f"node {node.name}: conv2d: input"):
        verify_structure(graph_module)


def test_double_precision(graph_module: GraphModule) -> None:
    node = calls(graph_module, "pcc.elementwise")[-1]
    for operand in node.all_input_nodes:
        operand.meta["val"] = operand.meta["val"].double()
    with pytest.raises(PccError, match="float64"):
        verify_structure(graph_module)


def test_constant_that_holds_nan(graph_module: GraphModule) -> None:
    weight = call(graph_module, "pcc.conv2d").all_input_nodes[1]
    constant(weight)[0, 0, 0, 0] = -torch.inf  # as in a mask
    verify_structure(graph_module)
    constant(weight)[0, 0, 0, 0] = torch.nan
    with pytest.raises(PccError, match=r"constant 'branch.0.weight' holds NaN"):
        verify_structure(graph_module)


def test_constant_that_is_gone(graph_module: GraphModule) -> None:
    del graph_module.get_submodule("branch.0").weight
    with pytest.raises(PccError, match=r"no constant 'branch.0.weight'"):
        verify_structure(graph_module)


def test_names_of_outputs(graph_module: GraphModule) -> None:
    graph_module.meta[OUTPUT_NAMES] = ("a", "b")
    with pytest.raises(PccError, match="returns 1 values under 2 names"):
        verify_structure(graph_module)


def test_relative_error() -> None:
    a = torch.tensor([1.0, -4.0])
    assert relative_error([a], [a]) == 0
    assert relative_error([a + 0.4], [a]) == pytest.approx(0.1)
    assert relative_error([a, a * 2], [a, a]) == pytest.approx(1)
    assert relative_error([torch.tensor([torch.nan, 0])], [a]) == float("inf")
    assert relative_error([a[:1]], [a]) == float("inf")
    beyond = torch.tensor([torch.inf, -torch.inf, torch.nan, 2.0])
    assert relative_error([beyond], [beyond]) == 0
    assert relative_error([beyond + torch.tensor([0, 0, 0, 0.5])], [beyond]) == pytest.approx(0.25)
    assert relative_error([-beyond], [beyond]) == float("inf")
    assert relative_error([a], [torch.tensor([1.0, torch.nan])]) == float("inf")


def test_run_graph_gives_all_outputs() -> None:
    net, inputs = make("decoder")
    expected = net(*inputs)
    actual = run_graph(import_module(net, inputs), inputs)
    assert relative_error(actual, tuple(expected.values())) < 1e-6
