"""What a package is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pcc.codegen.gpu_backend import GpuArtefact
from pcc.codegen.program import Program
from pcc.target import Target

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from pcc.codegen.machine_profile import MachineProfile


@dataclass(frozen=True)
class GpuBuild:
    """A program for a family of GPUs, and the graph that it was lowered from."""

    artefact: GpuArtefact
    graph: "GraphModule | None" = None
    host: Program | None = None
    """The processor's program, where this one calls its steps."""


@dataclass(frozen=True)
class TargetBuild:
    """One target's machine code: its program with planned memory, the object files of the program's kernels, the graph
    that it was lowered from, and what its kernels were chosen by. Builds for one target's name go into one library,
    best first."""

    target: Target
    program: Program
    objects: Sequence[Path]
    graph: "GraphModule | None" = None
    profile: "MachineProfile | None" = None
    """The costs that kernels were chosen by."""
    gpu: Sequence[GpuBuild] = ()
    """The programs of the target's GPU, one for each family."""


@dataclass(frozen=True)
class SelfTest:
    """Inputs and the outputs they must give, in the order of the model's ports; ``tolerance`` is relative to the
    largest output value.

    Of a model for any batch they have any number of images, the same in all.
    """

    inputs: Sequence[np.ndarray]
    outputs: Sequence[np.ndarray]
    tolerance: float = 1e-4


@dataclass(frozen=True)
class PackageSpec:
    """All that a package is made from."""

    name: str
    """Letters, digits, ``_`` and ``-``: the library is ``lib<name>.so``."""
    builds: Sequence[TargetBuild]
    preprocessing: Mapping[str, Any] | None = None
    labels: Sequence[str] | None = None
    selftest: SelfTest | None = None
    ir: Path | None = None
    """A folder of dumps to keep in ``ir/``."""
    notes: Mapping[str, Any] = field(default_factory=dict)
