import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from pcc import models
from pcc.frontend.torch_module import import_module
from pcc.ir.annotations import FilterOrder, StoredOrder, annotation, skips
from pcc.ir.ops import CONV2D
from pcc.ir.printer import print_graph
from pcc.ir.verify import relative_error, run_graph, verify_structure
from pcc.passes.packing import packed_weight
from pcc.sparsity.compose import Composition
from pcc.sparsity.fkw import FKW, unpack, validate
from pcc.sparsity.fkw_format import FORMAT
from pcc.sparsity.kernels import Kernels
from tests.passes.prunable import FRONT, convs, graph_of, mixed, output, run, weights

PRUNING = (
    "prune-pattern{spare_first=false},prune-connectivity{rate=3}",
    "prune-connectivity{rate=3,share=4},prune-pattern{spare_first=false,patterns=8}",
    "prune-connectivity{rate=2,share=2}",
)


def values(graph_module: GraphModule, x: Tensor) -> dict[str, Tensor]:
    """What every node computes."""
    seen: dict[str, Tensor] = {}

    class Record(Interpreter):
        def run_node(self, n: Node) -> object:
            seen[n.name] = super().run_node(n)
            return seen[n.name]

    with torch.no_grad():
        Record(graph_module).run(x)
    return seen


@pytest.mark.parametrize("pruning", PRUNING)
def test_the_graph_computes_the_same(pruning: str):
    graph_module, x = mixed()
    run(graph_module, pruning)
    expected = output(graph_module, x)
    run(graph_module, "reorder-kernels")
    verify_structure(graph_module)
    assert relative_error([output(graph_module, x)], [expected]) < 1e-6


@pytest.mark.parametrize("pruning", PRUNING)
def test_orders_say_where_channels_went(pruning: str):
    graph_module, x = mixed()
    before = values(run(graph_module, pruning), x)
    after = values(run(graph_module, "reorder-kernels"), x)
    moved = 0
    for name, conv in convs(graph_module).items():
        order = annotation(conv, FilterOrder)
        expected = before[conv.name] if order is None else before[conv.name][:, list(order.order)]
        torch.testing.assert_close(after[conv.name], expected, rtol=1e-4, atol=1e-4, msg=name)
        moved += order is not None
    assert moved >= 5


def test_free_where_it_can_be_and_a_reason_where_not():
    graph_module, _ = mixed()
    run(graph_module, "prune-pattern{spare_first=false},prune-connectivity{rate=3},reorder-kernels")
    pushed = {name: annotation(conv, FilterOrder) is not None for name, conv in convs(graph_module).items()}
    stored = {
        name: found.reason for name, conv in convs(graph_module).items() if (found := annotation(conv, StoredOrder))
    }
    assert pushed == {
        "stem": False,
        "left": True,
        "right": False,
        "grouped": True,
        "expand": True,
        "depthwise": True,
        "wide": True,
        "dilated": True,
    }
    assert stored == {
        "stem": "its channels are added to those of right",
        "right": "its channels are added to those of stem",
    }
    assert str(skips(convs(graph_module)["depthwise"])[-1]) == "reorder-kernels: depthwise: a filter has one connection"


@pytest.mark.parametrize("pruning", PRUNING)
def test_packed_weights_are_in_the_order_that_was_found(pruning: str):
    graph_module, _ = mixed()
    run(graph_module, f"{pruning},reorder-kernels")
    for name, conv in convs(graph_module).items():
        packed = packed_weight(conv, FORMAT)
        if name == "depthwise" or (name == "stem" and "prune-pattern" not in pruning):
            assert isinstance(packed, str)
            continue
        assert isinstance(packed, FKW)
        validate(packed)
        assert np.array_equal(unpack(packed), weights(graph_module)[name]), name
        stored = annotation(conv, StoredOrder)
        assert packed.reorder.tolist() == (list(range(packed.shape[0])) if stored is None else list(stored.order)), name
        lengths = np.diff(packed.offset).reshape(packed.groups, -1)
        assert (lengths[:, 0] >= lengths[:, -1]).all()


def test_a_second_run_changes_nothing():
    graph_module, _ = mixed()
    run(graph_module, "prune-pattern{spare_first=false},prune-connectivity{rate=3},reorder-kernels")
    text, before = print_graph(graph_module), weights(graph_module)
    run(graph_module, "reorder-kernels")
    assert print_graph(graph_module) == text
    for name, weight in weights(graph_module).items():
        assert torch.equal(weight, before[name])


def test_dense_layers_are_not_touched():
    graph_module, _ = mixed()
    before = weights(graph_module)
    run(graph_module, "reorder-kernels")
    for name, weight in weights(graph_module).items():
        assert torch.equal(weight, before[name])
        reason = "depthwise" if name == "depthwise" else "no connection is all zero"
        assert reason in str(skips(convs(graph_module)[name])[-1])


def test_a_model_pruned_elsewhere_is_recognised():
    graph_module, _ = mixed()
    pruned = weights(run(graph_module, "prune-connectivity{rate=3,share=4},prune-pattern{spare_first=false}"))
    module, _ = graph_of(nn.Sequential(nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 5, 1)), 1, 16, 9, 9)
    next(iter(weights(module).values())).copy_(pruned["left"])
    run(module, "detect-structure,reorder-kernels")
    found = annotation(convs(module)["0"], Composition)
    assert found is not None
    assert isinstance(found.parts[-1], Kernels)
    assert found.parts[-1].share == 4


class Readers(nn.Module):
    """One sparse convolution, read in a way that is given."""

    def __init__(self, read: Callable[["Readers", Tensor], object]) -> None:
        super().__init__()
        self.sparse = nn.Conv2d(8, 8, 3, padding=1)
        self.sibling = nn.Conv2d(8, 8, 3, padding=1)
        self.point = nn.Conv2d(8, 6, 1)
        self.pair = nn.Conv2d(8, 8, 3, groups=2)
        self.each = nn.Conv2d(8, 16, 3, groups=8)
        self.reduce = nn.Conv2d(16, 4, 1)
        self.narrow = nn.Conv2d(4, 6, 1)
        self.classify = nn.Linear(8 * 6 * 5, 3)
        self.scale = nn.Parameter(torch.zeros(8, 1, 1))
        self.read = read

    def forward(self, x: Tensor) -> object:
        return self.read(self, self.sparse(x))


def pooled(m: Readers, y: Tensor) -> Tensor:
    return nn.functional.avg_pool2d(nn.functional.interpolate(nn.functional.pad(y, (1, 0, 0, 2)), scale_factor=2.0), 3)


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (lambda m, y: m.point(torch.relu(y)), None),
        (lambda m, y: m.point(pooled(m, y)), None),
        (lambda m, y: m.point(y[:, :, 1:, ::2]), None),
        (lambda m, y: m.point(y * torch.sigmoid(y)), None),
        (lambda m, y: m.point(torch.relu(y) * m.scale + 2), None),
        (lambda m, y: m.reduce(torch.relu(m.each(torch.relu(y)))), None),
        (lambda m, y: m.classify(torch.flatten(torch.relu(y), 1)), None),
        (lambda m, y: (m.point(y), m.pair(m.sibling(torch.tanh(y)))), None),
        (lambda m, y: torch.relu(y), "it is an output of the model"),
        (lambda m, y: m.pair(torch.relu(y)), "pair reads it in 2 groups"),
        (lambda m, y: m.point(y + m.sibling(y)), "its channels are added to those of sibling"),
        (lambda m, y: m.point(y + m.point(y)[:, :1]), None),
        (lambda m, y: m.point(y[:, :1] + y), "combines it with all channels of another"),
        (lambda m, y: m.point(y + m.scale * y.mean()), "some of its channels are read as one"),
        (lambda m, y: m.reduce(torch.cat([torch.relu(y), y], 1)), None),
        (lambda m, y: m.narrow(torch.relu(y)[:, 2:6]), "takes a part of its channels"),
        (lambda m, y: torch.softmax(y, 1), "needs its channels in order|it is an output"),
        (lambda m, y: m.narrow(torch.relu(y).reshape(1, 4, 12, 5)), "some of its channels are read as one"),
        (
            lambda m, y: m.point(torch.relu(y).reshape(1, 2, 4, 6, 5).transpose(1, 2).reshape(1, 8, 6, 5)),
            r"reshapes it from \[1, 8, 6, 5\] to \[1, 2, 4, 6, 5\]",
        ),
        (lambda m, y: m.reduce(nn.functional.pad(torch.relu(y), (0, 0, 0, 0, 3, 5))), None),
        (lambda m, y: m.point(torch.relu(y).permute(0, 1, 3, 2)), None),
    ],
)
def test_readers(read: Callable[[Readers, Tensor], object], reason: str | None):
    graph_module, x = graph_of(Readers(read), 1, 8, 6, 5)
    run(graph_module, "prune-connectivity{rate=1,layers={sparse=2.5}}")
    expected = run_graph(graph_module, (x,))
    run(graph_module, "reorder-kernels")
    verify_structure(graph_module)
    assert relative_error(run_graph(graph_module, (x,)), expected) < 1e-6
    sparse = convs(graph_module)["sparse"]
    stored = annotation(sparse, StoredOrder)
    if reason is None:
        assert stored is None
        assert annotation(sparse, FilterOrder) is not None
    else:
        assert stored is not None
        assert annotation(sparse, FilterOrder) is None
        assert re.search(reason, stored.reason), stored.reason


def test_layers_that_share_constants_are_reordered_all_the_same() -> None:
    """Equal biases are stored once, and one layer is called twice."""
    torch.manual_seed(0)
    first, shared = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
    module = nn.Sequential(first, nn.ReLU(), shared, nn.ReLU(), shared, nn.ReLU(), nn.Conv2d(8, 8, 1)).eval()
    for layer in (first, shared):
        layer.bias = shared.bias
    x = torch.randn(1, 8, 6, 5, generator=torch.Generator().manual_seed(1))
    graph_module = run(import_module(module, (x,)), f"{FRONT},prune-connectivity{{rate=2.5,spare_first=false}}")
    expected = output(graph_module, x)
    run(graph_module, "reorder-kernels")
    verify_structure(graph_module)
    assert relative_error([output(graph_module, x)], [expected]) < 1e-6
    nodes = graph_module.graph.find_nodes(op="call_function", target=CONV2D)
    assert [annotation(conv, FilterOrder) is not None for conv in nodes] == [True, True, True, False]


@pytest.mark.parametrize(("name", "most_stored", "share"), [("resnet18", 11, 1), ("mobilenet_v2", 17, 4)])
def test_zoo_models(name: str, most_stored: int, share: int):
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    graph_module = run(
        import_module(models.create(name, None), (x,)),
        f"{FRONT},prune-pattern{{spare_first=false}},prune-connectivity{{share={share}}}",
    )
    expected = output(graph_module, x)
    run(graph_module, "reorder-kernels")
    assert relative_error([output(graph_module, x)], [expected]) < 1e-5
    stored = [name for name, conv in convs(graph_module).items() if annotation(conv, StoredOrder)]
    pushed = [name for name, conv in convs(graph_module).items() if annotation(conv, FilterOrder)]
    assert len(stored) <= most_stored, stored
    assert len(pushed) >= 8


def test_golden(golden: Callable[[str, str], None]):
    graph_module, _ = mixed()
    golden(
        print_graph(
            run(graph_module, "prune-pattern{spare_first=false},prune-connectivity{rate=3,share=2},reorder-kernels")
        ),
        "reorder_kernels",
    )


def test_pruning_again_afterwards_forgets_the_stored_order():
    graph_module, x = mixed()
    run(
        graph_module,
        "prune-pattern{spare_first=false},reorder-kernels,prune-connectivity{rate=3,spare_first=false,share=2}",
    )
    assert not any(annotation(conv, StoredOrder) for conv in convs(graph_module).values())
    for name, conv in convs(graph_module).items():
        packed = packed_weight(conv, FORMAT)
        assert isinstance(packed, str) == (name == "depthwise")
        if isinstance(packed, FKW):
            assert packed.share == 2
            assert np.array_equal(unpack(packed), weights(graph_module)[name])
    expected = output(graph_module, x)
    assert relative_error([output(run(graph_module, "reorder-kernels"), x)], [expected]) < 1e-6
