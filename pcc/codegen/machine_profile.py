"""Processor profiles as files: what `pcc tune --calibrate` writes, what compilations use, and what packages record."""

import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pcc.codegen.isa import isa_named
from pcc.codegen.machine import MACHINES, Machine, Work, machine_of
from pcc.config import saved_profile
from pcc.errors import PccError, first_problem
from pcc.files import read_limited
from pcc.target import Target

BUILT_IN = "built-in"
"""Asks for pcc's own profiles, whatever is saved."""

FILE_BYTES = 64 << 10

Cost = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class MachineProfile(BaseModel):
    """A `Machine` as JSON, but for what LLVM is told: that goes by the target alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    name: str
    isa: str
    l1_bytes: Annotated[int, Field(gt=0)]
    l2_bytes: Annotated[int, Field(gt=0)]
    fma_in_flight: Annotated[int, Field(gt=0)]
    costs: dict[str, Cost]
    origin: str
    fma_cycles: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    loads_ahead: Annotated[int, Field(ge=0)]
    multiply_add_weight: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    load_pair_reach: Annotated[int, Field(ge=0)]

    @field_validator("isa")
    @classmethod
    def _known_isa(cls, name: str) -> str:
        try:
            return isa_named(name).name
        except PccError as error:
            raise ValueError(str(error)) from None

    @field_validator("costs")
    @classmethod
    def _all_costs(cls, costs: dict[str, float]) -> dict[str, float]:
        kinds = {kind.name for kind in fields(Work)}
        if kinds != set(costs):
            raise ValueError(f"they are of {', '.join(sorted(costs))}, not of {', '.join(sorted(kinds))}")
        if not any(costs.values()):
            raise ValueError("all are zero")
        return costs

    @classmethod
    def of(cls, machine: Machine) -> "MachineProfile":
        values = {each.name: getattr(machine, each.name) for each in fields(machine)}
        return cls.model_validate(values | {"isa": machine.isa.name, "costs": asdict(machine.costs)})

    @property
    def machine(self) -> Machine:
        values: dict[str, Any] = {name: value for name, value in self if name != "schema_version"}
        values |= {"isa": isa_named(self.isa), "costs": Work(**self.costs)}
        return Machine(**values)


def read_profile(path: Path) -> MachineProfile:
    """The profile in a file; `PccError` in one line for what is none."""
    try:
        return MachineProfile.model_validate_json(read_limited(path, "processor profile", FILE_BYTES))
    except ValidationError as error:
        raise PccError(
            f"processor profile {path} is not one that this pcc reads: {first_problem(error)}; pcc tune --calibrate "
            "makes one"
        ) from None


def processor_of(target: Target, wanted: str | None) -> str:
    """What `machine_named` takes, for a target: ``wanted`` is a profile's file or `BUILT_IN`; if None, the saved file
    where there is one, else built in."""
    if wanted is None:
        wanted = str(saved) if (saved := saved_profile(target)).exists() else BUILT_IN
    if wanted == BUILT_IN:
        return machine_of(target).name
    if not os.path.lexists(wanted):
        raise PccError(
            f"processor profile {wanted}: no such file; give one that pcc tune --calibrate wrote, or '{BUILT_IN}'"
        )
    profile = read_profile(Path(wanted))
    if profile.isa != target.isa:
        raise PccError(
            f"processor profile {wanted} is for {profile.isa}, and {target.name}, {target.cpu} has {target.isa}: "
            "compile for it by itself"
        )
    return os.path.abspath(wanted)


def machine_named(name: str) -> Machine:
    """The profile of that name, or in the file at that path (which has a ``/``); `PccError` where there is none."""
    if name in MACHINES:
        return MACHINES[name]
    if os.sep in name:
        return read_profile(Path(name)).machine
    raise PccError(
        f"unknown processor profile '{name}': choose one of {', '.join(MACHINES)}, or the path of a file of pcc tune "
        "--calibrate"
    )
