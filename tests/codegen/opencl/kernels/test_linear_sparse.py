"""Sparse linear layers on GPUs: tables against the weight, kernels on PoCL and by their reference against float64
PyTorch, and which layers get them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pcc.codegen.family import OPENCL, family_named
from pcc.codegen.layers import Linear
from pcc.codegen.opencl.families.linear_sparse import SharedSchedule
from pcc.codegen.opencl.kernels.linear_sparse import SHARES, SLICE, Slices, slices_of
from pcc.codegen.opencl.lower import planned
from pcc.codegen.opencl.program import DeviceProgramBuilder
from pcc.dtype import FLOAT16, FLOAT32, DType
from pcc.ir.activation import Activation
from pcc.ir.annotations import KernelChoice, annotation
from tests.codegen.kernels.test_linear_sparse import packed, weight
from tests.opencl_program import GRAPH_PASSES, device_graph, interpret_device, run_program


def blocks(outputs: int, depth: int, density: float) -> np.ndarray:
    """A weight whose outputs keep the same inputs in fours, which lie far from each other."""
    random = np.random.default_rng(0)
    kept = np.tile(random.random((outputs // 4, depth)) < density, (4, 1))
    return random.standard_normal((outputs, depth), np.float32) * kept


def unpacked(slices: Slices, shape: tuple[int, ...]) -> np.ndarray:
    dense = np.zeros((shape[0] + 1, shape[1]), np.float32)
    for piece, (begin, end) in enumerate(pairwise(slices.starts)):
        for lane in range(SLICE):
            outputs = slices.outputs[piece * SLICE + lane]
            for entry in range(begin, end):
                dense[outputs, slices.index[entry, lane]] += slices.weight[entry, lane]
    return dense[:-1]


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize(("outputs", "depth", "density"), [(1, 1, 0.5), (10, 17, 0.3), (65, 40, 0.1), (131, 9, 0.6)])
def test_slices_hold_the_weight(share: int, outputs: int, depth: int, density: float) -> None:
    dense = weight(outputs, depth, density)
    dense[0, 0] = 0
    np.testing.assert_array_equal(unpacked(slices_of(packed(dense), share), dense.shape), dense)


def test_outputs_that_keep_the_same_inputs_share_an_item() -> None:
    dense = blocks(64, 50, 0.2)
    dense[3] = 0  # an output that is like no other leaves the others' fours as they are
    slices = slices_of(packed(dense), 4)
    kept = int(np.count_nonzero(np.delete(dense[:16], 3, 0))) + int(np.count_nonzero(dense[19]))
    assert np.count_nonzero(slices.weight.any(axis=2)) == kept


CASES = [(1, 601, 33, 0.2), (3, 128, 64, 0.1), (5, 40, 131, 0.4), (1, 7, 1, 0.6), (2, 9, 4, 0.0)]
"""(N, K, M, density)."""


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(FLOAT32, 2e-6), (FLOAT16, 2e-3)], ids=str)
def test_layers(share: int, case: tuple[int, int, int, float], dtype: DType, tolerance: float) -> None:
    check(share, case, dtype, tolerance, (run_program, interpret_device))


def check(
    share: int, case: tuple[int, int, int, float], dtype: DType, tolerance: float, runs: Sequence[Callable[..., Any]]
) -> None:
    """A layer with bias, residual, and an activation that has a parameter for each output."""
    rows, depth, outputs, density = case
    random = np.random.default_rng(1)
    dense = weight(outputs, depth, density).astype(dtype.numpy)
    x, residual = (random.standard_normal((rows, count)).astype(dtype.numpy) for count in (depth, outputs))
    bias, slope = (random.standard_normal(outputs).astype(np.float32) for _ in range(2))
    csr = packed(dense.astype(np.float32))
    b = DeviceProgramBuilder("layer")
    views = b.input("x", x.shape, dtype), b.tensor("y", residual.shape, dtype)
    stored = replace(csr, weight=csr.weight.astype(dtype.numpy))
    added, activation = b.input("residual", residual.shape, dtype), Activation("prelu")
    layer = Linear("layer", *views, stored, bias, added, activation, parameter=slope)
    family_named("opencl-linear-sparse", OPENCL).emit(layer, SharedSchedule(share), b)
    b.output("y", views[1])
    program = planned(b.build())
    sums, of_slope = (torch.from_numpy(array.astype(np.float64)) for array in (residual + bias, slope))
    sums = sums + torch.from_numpy(x.astype(np.float64)) @ torch.from_numpy(dense.astype(np.float64)).T
    wanted = activation(sums, of_slope).numpy()
    for run in runs:
        (found,) = run(program, [x, residual])
        assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("kept", "chosen"),
    [
        ("dense", "opencl-linear: 4 outputs an item"),
        ("blocks", "opencl-linear-sparse: 4 outputs an item"),
        ("anywhere", "opencl-linear-sparse: 1 output an item"),
        ("many", "opencl-linear: 4 outputs an item"),
    ],
)
def test_costs_choose(kept: str, chosen: str) -> None:
    """Blocks of four pay from fewer zeros on than weights anywhere."""
    random, module = np.random.default_rng(0), nn.Linear(256, 64)
    dense = random.standard_normal((64, 256), np.float32)
    anywhere = {density: dense * (random.random(dense.shape) < density) for density in (0.02, 0.5)}
    pruned = {"dense": dense, "blocks": blocks(64, 256, 0.25), "anywhere": anywhere[0.02], "many": anywhere[0.5]}
    module.weight.data = torch.from_numpy(pruned[kept])
    graph = device_graph(module, [torch.zeros(2, 256)], "adreno-6xx", GRAPH_PASSES)
    (choice,) = [choice for node in graph.graph.nodes if (choice := annotation(node, KernelChoice))]
    assert f"{choice.family}: {choice.schedule}".startswith(chosen)
