"""Any schedule that a family offers computes its layer: random ones of random layers, against float64 PyTorch."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pcc.codegen.family import draw, families, family_named, offered, with_variants
from pcc.codegen.interpret import interpret
from pcc.codegen.isa import isa_named
from pcc.codegen.layers import Conv2d, ConvGeometry, Linear, PooledConv2d
from pcc.codegen.native import run_native
from pcc.codegen.print_program import print_program
from pcc.codegen.program import Program, ProgramBuilder
from pcc.ir.activation import Activation
from pcc.sparsity import fkw, joint, pattern
from pcc.sparsity.formats import DENSE, format_named
from tests.codegen.kernels.support import X86_TARGETS, machine_of

NAMES = pytest.mark.parametrize("name", list(families()))
RELU = Activation("relu")
MOST_MULTIPLIES = 400
"""In the code of a kernel that tests compile: interleaved ones are unrolled by pattern."""


@dataclass(frozen=True)
class Drawn:
    """A program of one layer with a random schedule, its inputs and what it must give."""

    program: Program
    inputs: list[np.ndarray]
    want: torch.Tensor
    schedule: object


def drawn(name: str, isa: str, random: Random) -> Drawn | None:
    """None where the family cannot compute the layer that was drawn."""
    return linear(name, isa, random) if family_named(name).layer is Linear else conv(name, isa, random)


def conv(name: str, isa: str, random: Random) -> Drawn | None:
    family, b = family_named(name), ProgramBuilder("drawn", isa_named(isa))
    depthwise = "depthwise" in name
    window = 1 if "pointwise" in name or (random.random() < 0.2 and not depthwise) else 3
    channels, filters = random.choice([1, 3, 6, 17]), random.choice([1, 4, 6, 13])
    groups, filters = (channels, channels) if depthwise else (1, filters)
    stride, padding = random.choice([1, 1, 2]), random.choice([0, 1]) if window == 3 else 0
    geometry = ConvGeometry((window, window), (stride, stride), (padding, padding, padding, padding))
    shape = (random.choice([1, 2]), channels, random.randint(4, 16), random.randint(4, 20))
    numbers = np.random.default_rng(random.randrange(1 << 30))
    patterns = pattern.DESIGNED if window == 3 else None
    dense = numbers.standard_normal((filters, channels // groups, window, window)).astype(np.float32)
    stored: np.ndarray | fkw.FKW = dense
    if family.format != DENSE:
        cut = joint.project(dense, patterns, 2.0 if channels > 1 else 1.0)
        dense, stored = cut.weight, fkw.pack(cut.weight, 1, patterns, 1, cut.order)
    x, bias = numbers.standard_normal(shape).astype(np.float32), numbers.standard_normal(filters).astype(np.float32)
    image, weight, biases = (torch.from_numpy(each).double() for each in (x, dense, bias))
    want = F.conv2d(image, weight, biases, stride, padding, 1, groups)
    pooled = family.layer is PooledConv2d
    added = None if pooled or random.random() < 0.5 else numbers.standard_normal(tuple(want.shape)).astype(np.float32)
    want = (want if added is None else want + torch.from_numpy(added)).relu()
    if pooled and (want.shape[2] % 2 or want.shape[3] % 2):
        return None
    want = F.max_pool2d(want, 2) if pooled else want
    view, residual = b.input("x", shape), None if added is None else b.input("r", added.shape)
    layer = Conv2d("conv", view, b.planes("y", tuple(want.shape)), stored, bias, geometry, groups, residual, RELU)
    schedule = draw(family, PooledConv2d(**vars(layer)) if pooled else layer, machine_of(b.isa), random)
    if isinstance(schedule, str):
        return None
    family.emit(PooledConv2d(**vars(layer)) if pooled else layer, schedule, b)
    return finished(b, layer, [x] if added is None else [x, added], want, schedule)


def linear(name: str, isa: str, random: Random) -> Drawn | None:
    family, b = family_named(name), ProgramBuilder("drawn", isa_named(isa))
    rows, depth, outputs = random.choice([1, 2, 5]), random.randint(1, 70), random.randint(1, 150)
    numbers = np.random.default_rng(random.randrange(1 << 30))
    dense = numbers.standard_normal((outputs, depth)).astype(np.float32)
    if family.format != DENSE:
        dense[numbers.random(dense.shape) < 0.7] = 0
    stored = dense if family.format == DENSE else format_named(family.format).pack(dense, 1, None)
    x, bias = (
        numbers.standard_normal((rows, depth)).astype(np.float32),
        numbers.standard_normal(outputs).astype(np.float32),
    )
    want = F.linear(*(torch.from_numpy(each).double() for each in (x, dense, bias))).relu()
    layer = Linear("linear", b.input("x", x.shape), b.tensor("y", tuple(want.shape)), stored, bias, None, RELU)
    schedule = draw(family, layer, machine_of(b.isa), random)
    if isinstance(schedule, str):
        return None
    family.emit(layer, schedule, b)
    return finished(b, layer, [x], want, schedule)


def finished(
    b: ProgramBuilder, layer: Conv2d | Linear, inputs: list[np.ndarray], want: torch.Tensor, schedule: object
) -> Drawn:
    from pcc.codegen.kernels.copy import emit_copy
    from pcc.codegen.layers import Copy

    y = b.tensor("contiguous", layer.y.shape)
    emit_copy(Copy("copy", layer.y, y), b)
    b.output("y", y)
    return Drawn(b.build(), inputs, want, schedule)


def compare(case: Drawn, outputs: list[np.ndarray]) -> None:
    error = np.abs(outputs[0] - case.want.numpy()).max() / max(1e-6, float(case.want.abs().max()))
    assert error <= 1e-5, f"{case.schedule}: relative error {error:g}"


@NAMES
@settings(max_examples=25, derandomize=True)
@given(seed=st.integers(0, 1 << 30), isa=st.sampled_from(["avx512", "avx2", "neon"]), parts=st.sampled_from([1, 3]))
def test_any_schedule_computes_the_layer(name: str, seed: int, isa: str, parts: int) -> None:
    case = drawn(name, isa, Random(seed))
    if case is not None:
        compare(case, interpret(case.program, case.inputs, parts))


@NAMES
def test_any_schedule_as_machine_code(name: str) -> None:
    random, compared = Random(name), 0
    for _ in range(60):
        case = drawn(name, X86_TARGETS[-1].isa, random)
        heights = getattr(getattr(case, "schedule", None), "heights", ())
        if case is not None and all(rows * case.schedule.columns * 36 <= MOST_MULTIPLIES for rows, _ in heights):  # type: ignore[attr-defined]
            compare(case, run_native(case.program, case.inputs, X86_TARGETS[-1], 2))
            compared += 1
        if compared == 2:
            return
    assert compared or "expand" in name, "no layer was drawn that the family computes"


@NAMES
def test_program_text(name: str, golden: Callable[[str, str], None]) -> None:
    """Each family's calls for a small layer, to read: a family without a golden text fails."""
    random = Random(name)
    case = next(case for isa in ("neon", "avx512") for _ in range(30) if (case := drawn(name, isa, random)))
    golden(f"{case.schedule}\n\n{print_program(case.program)}", f"{name.replace('-', '_')}.program")


def test_variants_are_schedules_of_their_own() -> None:
    b = ProgramBuilder("variants", isa_named("avx512"))
    layer = Linear("linear", b.input("x", (1, 8)), b.tensor("y", (1, 64)), np.ones((64, 8), np.float32), None)
    candidates = offered(family_named("linear"), layer, machine_of(b.isa))
    assert not isinstance(candidates, str)
    schedules = [candidate.schedule for candidate in with_variants(candidates)]
    assert len(schedules) == len(set(schedules)) > len(candidates)
    assert schedules[: len(candidates)] == [candidate.schedule for candidate in candidates]
