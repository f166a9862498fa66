"""What a user may hand in: modules, exported programs, functions; tensors and arrays alone, in tuples, lists and
dicts."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcc.errors import PccError
from pcc.frontend.inputs import as_module, example_tensors, model_name
from pcc.frontend.torch_module import import_module
from pcc.ir.verify import relative_error, run_graph


class Two(nn.Module):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x * mask


def exported() -> Any:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU()).eval()
    return torch.export.export(net, (torch.zeros(1, 3, 6, 6),))


@pytest.mark.parametrize(
    "model",
    [exported(), exported().module(), nn.Sequential(exported().module(), nn.Tanh())],
    ids=["program", "its module", "a layer of a model"],
)
def test_what_torch_export_made(model: Any) -> None:
    x = torch.randn(1, 3, 6, 6)
    module = as_module(model)
    assert module.eval() is module
    assert module.train() is module
    assert relative_error(run_graph(import_module(model, (x,)), (x,)), (module(x),)) < 1e-6


def test_a_function_and_what_it_captures() -> None:
    conv = nn.Conv2d(3, 4, 3)

    def edges(image: Tensor) -> Tensor:
        return F.relu(conv(image))

    x = torch.randn(1, 3, 6, 6)
    graph_module = import_module(edges, (x,))
    assert [node.name for node in graph_module.graph.find_nodes(op="placeholder")] == ["image"]
    assert relative_error(run_graph(graph_module, (x,)), (edges(x),)) < 1e-6
    assert [model_name(model) for model in (edges, lambda x: x, Two(), exported())] == [
        "edges",
        "model",
        "two",
        "model",
    ]


@pytest.mark.parametrize(
    "examples",
    [
        (torch.ones(2, 3), torch.zeros(3)),
        [torch.ones(2, 3), np.zeros(3, np.float32)],
        {"mask": torch.zeros(3), "x": np.ones((2, 3), np.float32)},
    ],
)
def test_examples_come_in_the_order_of_forward(examples: Any) -> None:
    tensors = example_tensors(Two(), examples)
    assert [tuple(x.shape) for x in tensors] == [(2, 3), (3,)]
    assert all(isinstance(x, Tensor) for x in tensors)


@pytest.mark.parametrize("example", [torch.ones(4, 3), np.ones((4, 3), np.float32), np.ones((3, 4), np.float32).T])
def test_one_example_needs_no_tuple(example: Any) -> None:
    (x,) = example_tensors(nn.ReLU(), example)
    assert x.shape == (4, 3)


@pytest.mark.parametrize(
    ("examples", "words"),
    [
        (
            {"x": torch.ones(1), "masks": torch.ones(1)},
            r"example inputs x, masks do not fit forward\(x, mask\): missing",
        ),
        ({"x": torch.ones(1)}, "missing a required argument: 'mask'"),
        ((torch.ones(1), [torch.ones(1)]), "input 1 is of type 'list'"),
        ((torch.ones(1), 3.0), "input 1 is of type 'float'"),
        ([np.array(["a"])], "input 0 is an array of <U1"),
        ("1,3,8,8", "example inputs of type 'str'"),
        (None, "example inputs of type 'NoneType'"),
    ],
)
def test_examples_that_are_none(examples: Any, words: str) -> None:
    with pytest.raises(PccError, match=words) as caught:
        example_tensors(Two(), examples)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU()), r"'0.weight' has no shape yet \(a lazy layer\)"),
        (nn.Sequential(nn.ReLU(), nn.LazyBatchNorm2d()), "'1.weight' has no shape yet"),
        (nn.Conv2d(3, 8, 3, device="meta"), "'weight' is on the meta device, without values"),
        (3, "a model of type 'int'"),
        (nn.ReLU, "a model of type 'ReLU'"),
    ],
)
def test_models_that_are_none(model: Any, words: str) -> None:
    with pytest.raises(PccError, match=words):
        import_module(model, (torch.ones(1, 3, 8, 8),))
