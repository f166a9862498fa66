"""What kernels are chosen for: a CPU's profile or a GPU's. Whose families compute for it, and what their work costs."""

import os
from typing import Any, ClassVar, Protocol

from pcc.codegen.machine import MACHINES
from pcc.codegen.machine_profile import machine_named
from pcc.codegen.opencl.profiles import PROFILES
from pcc.dtype import DType
from pcc.errors import PccError


class Processor(Protocol):
    """See the module's text."""

    @property
    def name(self) -> str: ...

    backend: ClassVar[str]
    """A key of `pcc.codegen.family.REGISTRIES`."""

    @property
    def origin(self) -> str:
        """Where the costs come from."""
        ...

    def cycles(self, work: Any) -> float:
        """What work costs, of the kind that the backend's families count: for choices, so only ratios matter."""
        ...

    def computes_in(self, dtype: DType) -> bool: ...

    def with_sums(self, dtype: DType) -> "Processor":
        """The same, with layers of fp16 adding up in a type, where the processor leaves the choice."""
        ...


def processor_named(name: str) -> Processor:
    """The profile of that name, or a CPU's in the file at that path; `PccError` where there is none."""
    if name in PROFILES:
        return PROFILES[name]
    if name in MACHINES or os.sep in name:
        return machine_named(name)
    raise PccError(
        f"unknown processor profile '{name}': choose one of {', '.join((*MACHINES, *PROFILES))}, or the path of a file "
        "of pcc tune --calibrate"
    )
