"""Padding that no convolution takes in is lowered to a fill and a copy."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcc.codegen.interpret import interpret
from pcc.codegen.isa import isa_named
from pcc.codegen.lower import lower
from pcc.frontend.torch_module import import_module
from pcc.passes.canonicalize import Canonicalize


class Pads(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (
            F.max_pool2d(F.pad(x, (1, 2, 0, 1), value=0.5), 2, 1),
            F.pad(x, (0, 0, 1, 0, 2, 1), value=-3.0),
            F.pad(x[:, 1:], (-1, 2)),
        )


def test_pads_of_any_dimension_and_value() -> None:
    x = torch.randn(2, 3, 5, 7)
    graph_module = import_module(Pads(), (x,))
    Canonicalize()(graph_module)
    for actual, expected in zip(
        interpret(lower(graph_module, "pads", isa_named("avx2")), [x.numpy()]), Pads()(x), strict=True
    ):
        np.testing.assert_array_equal(actual, expected.numpy())
