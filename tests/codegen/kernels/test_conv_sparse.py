"""Sparse convolutions against float64 PyTorch, over odd shapes, forms, structures and strides of memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pcc.codegen.kernels.conv_sparse import cost_conv_sparse, emit_conv_sparse
from pcc.codegen.kernels.sparse_plan import SparsePlan
from pcc.codegen.layers import Conv2d, ConvGeometry
from pcc.codegen.program import ProgramBuilder
from pcc.ir.activation import IDENTITY, Activation
from pcc.sparsity import fkw, joint, pattern
from tests.codegen.kernels.support import check, padded_view, rng

DESIGNED = pattern.DESIGNED
EIGHT = np.array([[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8], [0, 2, 4, 8], [1, 3, 4, 5], [1, 4, 6, 7], [3, 4, 5, 8]], np.int32)


def sparse_weight(shape, patterns=None, rate=2.0, share=1, groups=1, seed=0):
    dense = rng(seed).standard_normal(shape).astype(np.float32)
    cut = joint.project(dense, patterns, rate, share=share, groups=groups)
    return cut.weight, fkw.pack(cut.weight, groups, patterns, share, cut.order)


def run(shape, weight, packed, geometry, *, groups=1, bias=True, residual=False, activation=IDENTITY, plan=None, strided=False, **how):
    """Checks one layer: input of ``shape``, and the (dense weight, FKW) pair."""
    x = rng(1).standard_normal(shape).astype(np.float32)
    b_ = rng(2).standard_normal(len(weight)).astype(np.float32) if bias else None
    top, left, bottom, right = geometry.padding
    padded = F.pad(torch.from_numpy(x).double(), (left, right, top, bottom))
    want = F.conv2d(
        padded, torch.from_numpy(weight).double(), None if b_ is None else torch.from_numpy(b_).double(), geometry.stride, 0, geometry.dilation, groups
    )
    r = rng(3).standard_normal(tuple(want.shape)).astype(np.float32)
    want = activation(want + torch.from_numpy(r) if residual else want)

    def build(b: ProgramBuilder) -> None:
        view, extra = b.input("x", x.shape), b.input("r", r.shape)
        y = padded_view(b, "y", r.shape) if strided else b.tensor("y", r.shape)
        layer = Conv2d("conv", view, y, packed, b_, geometry, groups, extra if residual else None, activation)
        emit_conv_sparse(layer, b, plan and replace(plan, size=plan.size * b.lanes))
        b.output("y", y)

    return check(build, [x, r], [want], **how)


SCATTER = SparsePlan("scatter", size=2, block=5, most_taps=9, room=8)
GATHER = SparsePlan("gather", size=3, block=2, most_taps=4)


@pytest.mark.parametrize("plan", [None, SCATTER, GATHER], ids=["chosen", "scatter", "gather"])
@pytest.mark.parametrize(("width", "channels"), [(1, 3), (7, 17), (13, 1), (13, 6), (30, 3)])
def test_patterns_over_widths(plan, width, channels):
    weight, packed = sparse_weight((13, channels, 3, 3), EIGHT, rate=1.5 if channels > 1 else 1.0)
    run((1, channels, 9, width), weight, packed, ConvGeometry((3, 3), padding=(1, 1, 1, 1)), plan=plan)
