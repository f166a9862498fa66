"""Processors as cost models see them."""

import pytest

from pcc.codegen.machine import MACHINES, Machine, Work

EACH = pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)


@EACH
def test_no_inner_loop_is_faster_than_its_multiply_adds(machine: Machine) -> None:
    alone, with_loads = Work(fma=24), Work(fma=8, loads=8, scalars=8)
    assert machine.cycles(machine.loop(alone)) == pytest.approx(max(24 * machine.fma_cycles, machine.cycles(alone)))
    assert machine.loop(with_loads) == with_loads
    assert machine.loop(Work()) == Work()


@EACH
def test_weights_cost_what_the_l2_cache_does_not_hold(machine: Machine) -> None:
    assert machine.foreseen(machine.l2_bytes) == Work()
    double, triple = (machine.cycles(machine.foreseen(times * machine.l2_bytes)) for times in (2, 3))
    assert triple == pytest.approx(2 * double)
    assert double < machine.costs.beyond * machine.l2_bytes / machine.isa.vector_bytes or not machine.costs.beyond
