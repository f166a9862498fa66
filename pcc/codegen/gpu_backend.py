"""What a GPU's programming interface is to pcc: how a graph becomes a program for it, and a program what a library
carries.

Passes know nothing of it. A backend is a class like `pcc.codegen.opencl.backend.OpenCL`, a row of `BACKENDS`, and a
``struct pcc_device_backend`` in the runtime.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from pcc.codegen.print_program import print_program
from pcc.codegen.program import Program
from pcc.errors import PccError, suggestion
from pcc.target import Gpu

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from pcc.codegen.host_program import HostCalls


@dataclass(frozen=True)
class GpuKernel:
    """A kernel in the form that the driver takes."""

    name: str
    code: str

    @property
    def digest(self) -> str:
        """By which a runtime's cache knows what it built."""
        return hashlib.sha256(self.code.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class GpuArtefact:
    """A planned program for a family of GPUs, compiled: what a library carries of it."""

    profile: str
    devices: tuple[str, ...]
    """Parts of the names, in lower case, that devices of the family report; none for the program of any device."""
    program: Program[Any]
    kernels: Sequence[GpuKernel]
    """In the order of the program's."""
    isa: str = ""
    """The form of the model whose steps the program leaves to the processor; nothing where it leaves none."""

    @property
    def digest(self) -> str:
        """By which a runtime's cache knows what was right."""
        texts = [print_program(self.program), *(kernel.digest for kernel in self.kernels)]
        return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Crossing:
    """What the way between a GPU and the processor takes, in seconds."""

    wait: float
    """Until the GPU has done what it was given, and the processor knows."""
    copy: float
    """Of each tensor, however small."""
    byte: float
    """Of each of its bytes."""


class GpuBackend(Protocol):
    """See the module's text."""

    name: str
    """As ``--gpu`` has it."""
    suffix: str
    """Of a kernel's text in a dump."""
    runtime: str
    """The runtime's ``struct pcc_device_backend``."""

    @property
    def profiles(self) -> tuple[str, ...]:
        """The families of GPUs that it knows costs of, ``generic`` among them."""
        ...

    def lower(self, graph_module: "GraphModule", name: str, host: "HostCalls | None" = None) -> Program[Any]:
        """The planned program of a graph whose kernels are chosen for a profile, but for what ``host`` leaves to the
        processor. `PccError` for a node that no kernel computes."""
        ...

    def seconds(self, graph_module: "GraphModule", program: Program[Any], profile: str) -> Mapping[str, float]:
        """What the calls of each node take by the costs, by the nodes' names; ``program`` leaves none to the
        processor."""
        ...

    def crossing(self, profile: str) -> "Crossing":
        """What it costs to leave calls to the processor."""
        ...

    def compile(self, program: Program[Any], profile: str) -> GpuArtefact: ...


BACKENDS: dict[str, str] = {"opencl": "pcc.codegen.opencl.backend:OpenCL"}


def backend_named(name: str) -> GpuBackend:
    """The backend of that name; `PccError` where there is none."""
    if name not in BACKENDS:
        raise PccError(f"unknown GPU interface '{name}': {suggestion(name, BACKENDS)}")
    module, backend = BACKENDS[name].split(":")
    return getattr(import_module(module), backend)()


def gpu_named(text: str, on_cpu: Sequence[str] | None = None) -> Gpu:
    """What ``--gpu`` says, ``opencl`` or ``opencl:adreno-6xx,mali-g7x``, and the layers of ``--on-cpu``; `PccError` for
    names that are not known."""
    interface, colon, profiles = text.partition(":")
    known = backend_named(interface).profiles
    names = tuple(dict.fromkeys(profiles.split(","))) if colon else ("generic",)
    for name in names:
        if name not in known:
            raise PccError(f"unknown GPU profile '{name}' for {interface}: {suggestion(name, known)}")
    return Gpu(interface, names, None if on_cpu is None else tuple(on_cpu))
