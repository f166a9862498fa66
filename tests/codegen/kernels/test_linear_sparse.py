"""Sparse linear layers: tables against the weight, kernels against float64 PyTorch, what their inner loops are made
of."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcc.codegen.family import cheapest, family_named
from pcc.codegen.isa import isa_named
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.linear_sparse_expand import LANES, LinearExpandSchedule, LinearSparseExpand, masks_of
from pcc.codegen.kernels.linear_sparse_gather import UNROLLED, LinearGatherSchedule, LinearSparseGather, slices_of
from pcc.codegen.layers import Linear
from pcc.codegen.machine import MACHINES
from pcc.codegen.objects import compile_kernel
from pcc.codegen.program import ProgramBuilder, View
from pcc.ir.activation import IDENTITY, Activation
from pcc.sparsity.csr import Csr, pack
from pcc.target import Target, target_named
from tests.arm64 import arm64, run_emulated

from .support import ALL_TARGETS, X86_TARGETS, assembly, check, external_calls, loop_blocks, rng

CASES = [
    (1, 1, 1),
    (1, 17, 10),
    (1, 64, 128),
    (1, 601, 33),
    (2, 7, 65),
    (3, 128, 64),
    (4, 9, 24),
    (5, 40, 131),
    (13, 5, 3),
]
"""(N, K, M)."""

TARGETS = {
    "linear-sparse-gather": X86_TARGETS,
    "linear-sparse-expand": tuple(target for target in X86_TARGETS if isa_named(target.isa).expands),
}
FAMILY = pytest.mark.parametrize("family", TARGETS)
SCHEDULES = {"linear-sparse-gather": LinearGatherSchedule, "linear-sparse-expand": LinearExpandSchedule}


def weight(outputs: int, depth: int, density: float, seed: int = 0) -> np.ndarray:
    """Random, with a row that is empty, one that is full, and one that keeps nothing but its last weight, as far as
    there are rows."""
    random = rng(seed)
    dense = random.standard_normal((outputs, depth), np.float32)
    kept = random.random((outputs, depth)) < density
    kept[1:2], kept[2:3], kept[3:4] = False, True, np.arange(depth) == depth - 1
    kept[0, 0] = False
    return dense * kept


def packed(dense: np.ndarray) -> Csr:
    found = pack(dense)
    assert isinstance(found, Csr)
    return found


def linear(
    family: str,
    n: int,
    depth: int,
    outputs: int,
    density: float,
    *,
    rows: int = 1,
    bias: bool = True,
    residual: bool = False,
    activation: Activation = IDENTITY,
    apart: int = 0,
) -> None:
    random = rng()
    x, addend = random.standard_normal((n, depth + apart), np.float32), random.standard_normal((n, outputs), np.float32)
    dense, shift = weight(outputs, depth, density), random.standard_normal(outputs, np.float32) if bias else None

    def build(b: ProgramBuilder) -> None:
        whole, r, y = b.input("x", x.shape), b.input("r", addend.shape), b.tensor("y", (n, outputs))
        view = View(whole.buffer, (n, depth), whole.strides, apart)
        layer = Linear("fc", view, y, packed(dense), shift, r if residual else None, activation)
        family_named(family).emit(layer, SCHEDULES[family](rows), b)
        b.output("y", y)

    want = torch.from_numpy(x[:, apart:]).double() @ torch.from_numpy(dense).double().T
    want = want if shift is None else want + torch.from_numpy(shift).double()
    check(
        build,
        [x, addend],
        [activation(want + torch.from_numpy(addend).double() if residual else want)],
        targets=TARGETS[family],
    )


@FAMILY
@pytest.mark.parametrize("density", [0.0, 0.05, 0.5, 0.9])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_pytorch(family: str, case: tuple[int, int, int], density: float) -> None:
    linear(family, *case, density)


@FAMILY
@pytest.mark.parametrize("rows", [2, 4, 8])
@pytest.mark.parametrize("case", CASES[4:], ids=str)
def test_tiles_of_rows(family: str, case: tuple[int, int, int], rows: int) -> None:
    linear(family, *case, 0.3, rows=rows, bias=False)


@FAMILY
@pytest.mark.parametrize("case", CASES[3:6], ids=str)
def test_epilogue(family: str, case: tuple[int, int, int]) -> None:
    linear(family, *case, 0.1, residual=True, activation=Activation("relu"), apart=3)


@settings(max_examples=60)
@given(
    outputs=st.integers(1, 40),
    depth=st.integers(1, 40) | st.sampled_from([255, 256, 257, 511, 1200]),
    density=st.sampled_from([0.0, 0.01, 0.2, 0.9]),
    lanes=st.sampled_from([4, 8, 16]),
    seed=st.integers(0, 99),
)
def test_slices_hold_the_weight(outputs: int, depth: int, density: float, lanes: int, seed: int) -> None:
    dense = weight(outputs, depth, density, seed)
    tables, found = slices_of(packed(dense), lanes), np.zeros_like(dense)
    assert sorted(tables.outputs) == list(range(outputs))
    assert (np.diff(tables.starts) % UNROLLED == 0).all()
    for place, output in enumerate(tables.outputs):
        entries = slice(tables.starts[place // lanes], tables.starts[place // lanes + 1])
        columns = tables.steps[entries, place % lanes].astype(int).cumsum()
        assert (columns < depth).all()
        np.add.at(found[output], columns, tables.weight[entries, place % lanes])
    np.testing.assert_array_equal(found, dense)


@settings(max_examples=60)
@given(
    outputs=st.integers(1, 40),
    depth=st.integers(1, 40),
    density=st.sampled_from([0.0, 0.2, 0.9]),
    seed=st.integers(0, 99),
)
def test_masks_hold_the_weight(outputs: int, depth: int, density: float, seed: int) -> None:
    dense = weight(outputs, depth, density, seed)
    tables = masks_of(packed(dense))
    padded = np.zeros((-(-outputs // LANES) * LANES, depth + depth % 2), np.float32)
    padded[:outputs, :depth] = dense
    for block, panel in enumerate(padded.reshape(-1, LANES, padded.shape[1])):
        bits = (panel.T != 0) @ (1 << np.arange(LANES))
        assert (tables.masks[block].astype(np.uint32) == bits[::2] | bits[1::2] << LANES).all()
        np.testing.assert_array_equal(
            tables.weight[tables.starts[block] :][: np.count_nonzero(panel)], panel.T[panel.T != 0]
        )


def test_lists_about_as_long_lie_side_by_side() -> None:
    """Every second output keeps a tenth of the others' weights: slices of like lists store hardly more than what is
    kept."""
    dense = rng().standard_normal((256, 2000), np.float32)
    dense[rng(1).random(dense.shape) > np.where(np.arange(256) % 2, 0.3, 0.03)[:, None]] = 0
    assert slices_of(packed(dense), 16).weight.size < 1.05 * np.count_nonzero(dense)


@pytest.mark.parametrize("name", MACHINES)
def test_who_expands(name: str) -> None:
    machine = MACHINES[name]
    layer = Linear("fc", View("x", (1, 64), (64, 1)), View("y", (1, 64), (64, 1)), packed(weight(64, 64, 0.3)), None)
    found = cheapest(family_named("linear-sparse-expand"), layer, machine)
    assert machine.isa.expands == (not isinstance(found, str))
    assert isinstance(found, tuple) or "by a mask of 16 bits" in found


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.cpu)
def test_loop_of_gather(target: Target) -> None:
    """Two vectors an iteration, as many gathers where there is such an instruction; no stack, no stores, no calls."""
    isa = isa_named(target.isa)
    text = assembly(LinearSparseGather(1, isa.vector_bytes // 4, Epilogue()), target)
    assert external_calls(text) == set()
    loop = next(block for block in loop_blocks(text) if len(re.findall(r"vfmadd|fmla", block)) >= UNROLLED)
    multiplies = len(re.findall(r"vfmadd|fmla", loop))
    assert len(re.findall("vgatherdps", loop)) == (multiplies if isa.gathers else 0)
    assert not re.search(r"\(%rsp|\[sp|\bst(?:p|u?r)\s", loop)


@pytest.mark.skipif(not TARGETS["linear-sparse-expand"], reason="needs AVX-512")
def test_loop_of_expand() -> None:
    """An input costs an expanding load and, for each row, a multiply-add with a broadcast operand; no stack, no
    calls."""
    text = assembly(LinearSparseExpand(4, Epilogue()), target_named("x86_64-linux", "x86-64-v4"))
    assert external_calls(text) == set()
    loop = max(loop_blocks(text), key=lambda block: len(re.findall("vexpandps", block)))
    assert len(re.findall("vfmadd", loop)) == 4 * len(re.findall("vexpandps", loop)) > 0
    assert not re.search(r"\(%rsp", loop)


@arm64
def test_arm64() -> None:
    b, want = ProgramBuilder("arm64", isa_named("neon")), []
    value = rng(1).standard_normal((5, 601), np.float32)
    x = b.input("x", value.shape)
    for rows, outputs, density in ((1, 33, 0.05), (2, 24, 0.0), (4, 10, 0.5)):
        dense, y = weight(outputs, 601, density), b.tensor(f"y{rows}", (5, outputs))
        layer = Linear(f"fc{rows}", x, y, packed(dense), np.ones(outputs, np.float32), activation=Activation("relu"))
        family_named("linear-sparse-gather").emit(layer, LinearGatherSchedule(rows), b)
        b.output(y.buffer, y)
        want.append(np.maximum(value.astype(np.float64) @ dense.T + 1, 0))
    for cpu, outputs in run_emulated(b.build(), [value]).items():
        for output, expected in zip(outputs, want, strict=True):
            error = np.abs(output.reshape(expected.shape) - expected).max() / np.abs(expected).max()
            assert error <= 1e-5, f"{cpu}: relative error {error:g}"


def test_kernel_text(golden) -> None:
    """The TIR of one small kernel, to read."""
    compiled = compile_kernel(
        LinearSparseGather(1, 4, Epilogue(residual=True, activation=Activation("relu"))), target_named("aarch64-linux")
    )
    golden(compiled.texts["tir"].read_text(), "linear_sparse_gather.tir")
