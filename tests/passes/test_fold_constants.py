"""fold-constants: what is computed, what is dropped, what is shared, and what is left for good reason."""

import torch
from torch import Tensor, nn

from pcc.ir.graph import constant
from pcc.ir.printer import print_graph
from pcc.passes.fold_constants import FoldConstants
from tests.passes.exact import apply_exactly, canonical, nodes, operators, reasons


class Constants(nn.Module):
    """A mask that is computed, a positional term that is split, a product with a transposed matrix."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.mask = nn.Parameter(torch.randn(1, 4, 1, 1, generator=generator))
        self.term = nn.Parameter(torch.randn(2, 4, generator=generator))
        self.matrix = nn.Parameter(torch.randn(4, 3, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.mask * 2 + 1)
        first, second = self.term.chunk(2)
        x = (x * gate).mean((2, 3)) + first - second
        return x @ self.matrix + torch.arange(3, dtype=torch.float32)


def test_constant_subgraphs_become_constants() -> None:
    graph_module = canonical(Constants(), torch.zeros(2, 4, 5, 5))
    assert operators(graph_module)["permute"] == 1
    graph_module = apply_exactly(graph_module, FoldConstants())
    assert set(operators(graph_module)) == {"elementwise", "pool2d", "reshape", "linear"}
    assert "mask" not in dict(graph_module.named_buffers())


def test_golden(golden) -> None:

    golden(print_graph(FoldConstants()(canonical(Constants(), torch.zeros(2, 4, 5, 5))).graph_module), "fold_constants")


class Twins(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(2, 2, 3) for _ in range(3))
        self.b.load_state_dict(self.a.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x) + self.c(x)


def test_equal_constants_are_stored_once() -> None:
    graph_module = apply_exactly(canonical(Twins(), torch.zeros(1, 2, 5, 5)), FoldConstants())
    assert {name for name, _ in graph_module.named_buffers()} == {"a.weight", "a.bias", "c.weight", "c.bias"}
    first, second, third = nodes(graph_module, "conv2d")
    assert first.args[1] is second.args[1]
    assert first.args[1] is not third.args[1]


def test_equality_is_of_bytes() -> None:
    class Zeros(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plus, self.minus = nn.Parameter(torch.zeros(1, 3)), nn.Parameter(-torch.zeros(1, 3))

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.plus).maximum(x * self.minus)

    graph_module = FoldConstants()(canonical(Zeros(), torch.zeros(2, 3))).graph_module
    assert len(dict(graph_module.named_buffers())) == 2


class Row(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.arange(1024.0).reshape(1, 1, 1, 1024))


def test_large_broadcasts_stay_and_say_why() -> None:
    class Broadcast(Row):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, self.row.expand(1, 1, 1024, 1024)], 1)

    graph_module = apply_exactly(canonical(Broadcast(), torch.zeros(1, 1, 1024, 1024)), FoldConstants())
    (expand,) = nodes(graph_module, "expand")
    assert reasons(expand) == "fold-constants: the result would be 3 MiB larger than what it is computed from"


def test_large_constants_that_no_kernel_computes_are_computed() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen = nn.Buffer(torch.ones(1, 600, 600).bool())

        def forward(self, x: Tensor) -> Tensor:
            return x.masked_fill(~self.seen, 0.0) + torch.full((600, 600), -torch.inf).triu(1)

    graph_module = apply_exactly(canonical(Masked(), torch.zeros(1, 600, 600)), FoldConstants())
    assert set(operators(graph_module)) <= {"elementwise"}


def test_what_is_computed_of_a_large_broadcast_is_computed() -> None:
    class Corner(Row):
        def forward(self, x: Tensor) -> Tensor:
            return x + (self.row.expand(1, 1, 1024, 1024) * 2)[..., :3, :3]

    graph_module = apply_exactly(canonical(Corner(), torch.zeros(1, 1, 3, 3)), FoldConstants())
    assert set(operators(graph_module)) <= {"elementwise"}


def test_an_output_may_be_constant() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x * 2, self.scale * 2

    graph_module = apply_exactly(canonical(Half(), torch.zeros(1, 3)), FoldConstants())
    second = graph_module.graph.output_node().args[0][1]  # type: ignore[index]
    assert constant(second).tolist() == [2, 2, 2]  # type: ignore[arg-type]
