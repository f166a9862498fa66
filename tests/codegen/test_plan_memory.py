"""plan-memory: buffers that live at the same time never overlap, values survive, and the arena is close to what must
be."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcc.codegen.interpret import interpret
from pcc.codegen.isa import isa_named
from pcc.codegen.kernel import READ_SLACK, Argument, Param
from pcc.codegen.plan_memory import PlanMemory, buffer_lifetimes, memory_lower_bound
from pcc.codegen.program import Program, ProgramBuilder
from pcc.errors import PccError
from pcc.passes.pipeline import parse_pipeline


@dataclass(frozen=True)
class Add:
    """y[i] = a[i % na] + b[i % nb]: a kernel with two operands of any size."""

    name = "add"
    params = (Param("a", "f32*"), Param("b", "f32*"), Param("y", "f32*", writes=True), Param("na"), Param("nb"))

    def body(self, k: object) -> None:
        raise AssertionError("only interpreted here")

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        items = np.arange(begin, end)
        args["y"][begin:end] = args["a"][items % args["na"]] + args["b"][items % args["nb"]]  # type: ignore[index]


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Random straight-line programs: every call adds two earlier values."""
    b = ProgramBuilder("random", isa_named("neon"))
    values = [b.input("x", (draw(st.integers(1, 40)),))]
    for index in range(draw(st.integers(1, 12))):
        left, right = draw(st.sampled_from(values)), draw(st.sampled_from(values))
        y = b.tensor(f"t{index}", (draw(st.integers(1, 300)),))
        b.call(Add(), {"a": left, "b": right, "y": y, "na": left.shape[0], "nb": right.shape[0]}, work=y.shape[0])
        values.append(y)
    b.output("y", values[-1])
    if len(values) > 2:
        b.output("z", values[draw(st.integers(1, len(values) - 2))])
    return b.build()


@pytest.mark.parametrize("alignment", [0, -64, 3, 48, 96])
def test_alignments_that_kernels_cannot_have(alignment: int) -> None:
    with pytest.raises(PccError, match=f"alignment={alignment}}}.* multiples of 64 bytes"):
        parse_pipeline(f"plan-memory{{alignment={alignment}}}")


@given(programs(), st.sampled_from((64, 128, 512)))
@settings(max_examples=60)
def test_values_survive_and_live_buffers_never_overlap(program: Program, alignment: int) -> None:
    planned = PlanMemory(alignment)(program)
    lifetimes = buffer_lifetimes(planned)
    for left, right in combinations([planned.buffers[name] for name in lifetimes], 2):
        assert left.offset is not None
        assert right.offset is not None
        apart = (
            left.offset + left.nbytes + READ_SLACK <= right.offset
            or right.offset + right.nbytes + READ_SLACK <= left.offset
        )
        assert apart or not lifetimes[left.name].overlaps(lifetimes[right.name])
    assert all(
        buffer.offset is not None and buffer.offset % alignment == 0
        for buffer in planned.buffers.values()
        if buffer.name in lifetimes
    )
    x = np.random.default_rng(0).standard_normal(program.inputs[0].shape, dtype=np.float32)
    for expected, got in zip(interpret(program, [x]), interpret(planned, [x]), strict=True):
        np.testing.assert_array_equal(got, expected)


@given(programs())
@settings(max_examples=60)
def test_arena_is_at_least_the_lower_bound_and_planning_is_stable(program: Program) -> None:
    planned = PlanMemory()(program)
    assert planned.arena_bytes >= memory_lower_bound(program)
    assert PlanMemory()(planned) == planned


def test_a_chain_needs_two_buffers() -> None:
    b = ProgramBuilder("chain", isa_named("neon"))
    value = b.input("x", (1024,))
    for index in range(6):
        y = b.tensor(f"t{index}", (1024,))
        b.call(Add(), {"a": value, "b": value, "y": y, "na": 1024, "nb": 1024}, work=1024)
        value = y
    b.output("y", value)
    program = b.build()
    assert memory_lower_bound(program) == 2 * 4096
    assert PlanMemory()(program).arena_bytes == 2 * (4096 + READ_SLACK)
    offsets = [PlanMemory()(program).buffers[f"t{index}"].offset for index in range(6)]
    assert offsets == [4352, 0, 4352, 0, 4352, 0]


def test_what_a_thread_has_is_no_part_of_the_arena() -> None:
    b = ProgramBuilder("own", isa_named("neon"))
    x, y = b.input("x", (1024,)), b.tensor("y", (1024,))
    first, second, third = (
        b.thread_tensor(name, (size,)) for name, size in (("first", 64), ("second", 256), ("third", 16))
    )
    b.call(Add(), {"a": x, "b": first, "y": second, "na": 1024, "nb": 64}, work=64)
    b.call(Add(), {"a": x, "b": third, "y": y, "na": 1024, "nb": 16}, work=1024)
    b.output("y", y)
    planned = PlanMemory()(b.build())
    assert planned.arena_bytes == 2 * (4096 + READ_SLACK)
    assert {name: planned.buffers[name].offset for name in ("first", "second", "third")} == {
        "second": 0,
        "first": 1024 + READ_SLACK,
        "third": 0,
    }
    assert planned.thread_bytes == 1024 + 256 + 2 * READ_SLACK
    assert memory_lower_bound(planned) == 2 * 4096
