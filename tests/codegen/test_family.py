"""The registry of kernel families: pcc's own by name, those of other packages by entry point, one line for what is not
there."""

from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from pcc.codegen import family as registry
from pcc.codegen.family import LLVM, REGISTRIES, Candidate, cheapest, families, family_named
from pcc.codegen.layers import Linear
from pcc.codegen.machine import MACHINES, Work, machine_of
from pcc.codegen.program import ProgramBuilder, View
from pcc.dtype import FLOAT32, INT8, DType
from pcc.errors import PccError
from pcc.target import ARM_CPUS, X86_CPUS, target_named


@dataclass(frozen=True)
class Slow:
    """A family of another package: two schedules, the second cheaper."""

    name: str = "slow"
    layer: type[Linear] = Linear
    format: str = "dense"
    dtypes: tuple[DType, ...] = (FLOAT32,)

    def candidates(self, layer: Linear, machine: object) -> list[Candidate]:
        return [Candidate("first", Work(fma=2e9)), Candidate("second", Work(fma=1e9))]

    def emit(self, layer: Linear, schedule: object, b: ProgramBuilder) -> None:
        raise AssertionError("it is never the cheapest")


SLOW = Slow()
GROUP = REGISTRIES[LLVM].entry_points


@pytest.mark.parametrize("backend", REGISTRIES)
def test_each_family_is_named_as_it_is_registered(backend: str) -> None:
    names = list(REGISTRIES[backend].families)
    assert {name: family.name for name, family in families(backend).items()} == dict(zip(names, names, strict=True))


def test_a_name_that_is_none() -> None:
    with pytest.raises(PccError, match=r"unknown kernel family 'conv-quick' of llvm: choose one of conv-dense, .*"):
        family_named("conv-quick")


def test_families_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("slow", f"{__name__}:SLOW", GROUP),
        EntryPoint("broken", "nowhere:FAMILY", GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points[:1])
    families.cache_clear()
    try:
        assert family_named("slow") is SLOW
        x, y = View("x", (1, 8), (8, 1)), View("y", (1, 4), (4, 1))
        layer = Linear("linear", x, y, np.zeros((4, 8), np.float32), None)
        found = cheapest(family_named("slow"), layer, MACHINES["avx2"])
        assert not isinstance(found, str)
        assert found[0].schedule == "second"
        assert (
            cheapest(family_named("slow"), replace(layer, x=replace(x, dtype=INT8)), MACHINES["avx2"])
            == "slow takes float32, not int8"
        )
        monkeypatch.setattr(registry, "entry_points", lambda group: points)
        families.cache_clear()
        with pytest.raises(PccError, match="kernel family broken of nowhere:FAMILY cannot be loaded"):
            families()
    finally:
        families.cache_clear()


@pytest.mark.parametrize(
    ("target", "cpu"), [*(("x86_64-linux", cpu) for cpu in X86_CPUS), *(("aarch64-android", cpu) for cpu in ARM_CPUS)]
)
def test_every_processor_has_a_profile_for_its_instruction_set(target: str, cpu: str) -> None:
    machine = machine_of(target_named(target, cpu))
    assert machine.isa.name == target_named(target, cpu).isa
    assert machine.cycles(Work(fma=1)) > 0
