"""Kernel families: ways to compute a layer. Each offers schedules with what they cost, and writes the calls of the one
that is chosen.

A family is an object in a file of its own. Each backend has a registry of its families: pcc's, and those of other
packages by entry points. Nothing else knows which there are: select-kernels asks all of the processor's backend that
take the layer and its weight, lowering calls the one that was chosen.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from random import Random
from typing import Any, Protocol

from pcc.codegen.layers import Conv2d, Linear
from pcc.codegen.processor import Processor
from pcc.dtype import DType
from pcc.errors import PccError


@dataclass(frozen=True)
class Registry:
    """The families of a backend."""

    package: str
    """Where pcc's are."""
    entry_points: str
    """The group of other packages' entry points."""
    families: Mapping[str, str]
    """pcc's: where in the package each is (module:object)."""


LLVM, OPENCL = "llvm", "opencl"

REGISTRIES: dict[str, Registry] = {
    LLVM: Registry(
        "pcc.codegen.kernels",
        "pcc.kernel_families",
        {
            "conv-dense": "conv_dense:FAMILY",
            "conv-dense-interleaved": "conv_interleaved:DENSE_FAMILY",
            "conv-dense-interleaved-pool": "conv_interleaved:DENSE_POOLED_FAMILY",
            "conv-dense-winograd": "conv_winograd:FAMILY",
            "conv-dense-winograd-pool": "conv_winograd:POOLED_FAMILY",
            "conv-depthwise": "conv_depthwise:FAMILY",
            "conv-depthwise-direct": "conv_depthwise_direct:FAMILY",
            "conv-sparse-scatter": "conv_sparse_scatter:FAMILY",
            "conv-sparse-gather": "conv_sparse_gather:FAMILY",
            "conv-sparse-pointwise": "conv_sparse_pointwise:FAMILY",
            "conv-sparse-interleaved": "conv_interleaved:SPARSE_FAMILY",
            "conv-sparse-interleaved-pool": "conv_interleaved:SPARSE_POOLED_FAMILY",
            "conv-sparse-interleaved-scatter": "conv_interleaved_scatter:FAMILY",
            "linear": "linear:FAMILY",
            "linear-sparse-gather": "linear_sparse_gather:FAMILY",
            "linear-sparse-expand": "linear_sparse_expand:FAMILY",
        },
    ),
    OPENCL: Registry(
        "pcc.codegen.opencl.families",
        "pcc.opencl_families",
        {
            "opencl-conv-any": "conv_any:FAMILY",
            "opencl-conv-direct": "conv_direct:FAMILY",
            "opencl-conv-winograd-2": "conv_winograd:F2_FAMILY",
            "opencl-conv-winograd-4": "conv_winograd:F4_FAMILY",
            "opencl-conv-sparse": "conv_sparse:FAMILY",
            "opencl-conv-sparse-gather": "conv_sparse:GATHER_FAMILY",
            "opencl-linear": "linear:FAMILY",
            "opencl-linear-sparse": "linear_sparse:FAMILY",
        },
    ),
}
"""By backend: what a `Processor` and a `pcc.codegen.program.ProgramWriter` say of themselves."""

WeightFormat = str
"""How a family takes its weight: ``dense``, an array of the layer's shape, or the name of a format
(`pcc.sparsity.formats`)."""


@dataclass(frozen=True)
class Candidate:
    """A schedule of a family for a layer."""

    schedule: Any
    """A frozen dataclass of the family's; ``str`` describes it in a few words. It may have ``variants()``: schedules
    that compute the same and that costs do not tell apart."""
    work: Any
    """What it executes for one image, on average of as many as the layer is for: counts of the backend's kind, which
    its processors price."""


class KernelFamily(Protocol):
    """A way to compute layers of one kind."""

    @property
    def name(self) -> str: ...

    @property
    def layer(self) -> type[Conv2d] | type[Linear]:
        """The kind of layer it computes."""
        ...

    @property
    def format(self) -> WeightFormat: ...

    @property
    def dtypes(self) -> Sequence[DType]:
        """The element types of inputs that it takes."""
        ...

    def candidates(self, layer: Any, machine: Any) -> Sequence[Candidate] | str:
        """The schedules worth pricing on a processor of the backend, or why the family cannot compute this layer.
        Sizes, strides and weights of the layer count, not its places."""
        ...

    def emit(self, layer: Any, schedule: Any, b: Any) -> None:
        """Records the calls that compute ``layer.y``, with the backend's writer of programs."""
        ...


@cache
def families(backend: str = LLVM) -> dict[str, KernelFamily]:
    """All families of a backend by name, imported now: pcc's own, then those of other packages. `PccError` for one that
    cannot be loaded."""
    found: dict[str, KernelFamily] = {}
    registry = REGISTRIES[backend]
    for name, place in registry.families.items():
        module, _, family = place.partition(":")
        found[name] = getattr(importlib.import_module(f"{registry.package}.{module}"), family)
    for point in sorted(entry_points(group=registry.entry_points), key=lambda point: point.name):
        try:
            found.setdefault(point.name, point.load())
        except Exception as error:
            raise PccError(f"kernel family {point.name} of {point.value} cannot be loaded: {error}") from error
    return found


def family_named(name: str, backend: str = LLVM) -> KernelFamily:
    """The family of that name; `PccError` where the backend has none."""
    found = families(backend)
    if name not in found:
        raise PccError(f"unknown kernel family '{name}' of {backend}: choose one of {', '.join(found)}")
    return found[name]


def offered(family: KernelFamily, layer: Any, machine: Processor) -> Sequence[Candidate] | str:
    """The schedules of a family that are worth pricing, or why it has none for the layer."""
    if layer.x.dtype not in family.dtypes:
        return f"{family.name} takes {' or '.join(map(str, family.dtypes))}, not {layer.x.dtype}"
    if not machine.computes_in(layer.x.dtype):
        return f"{machine.name} does not compute in {layer.x.dtype}"
    return family.candidates(layer, machine)


def with_variants(candidates: Sequence[Candidate]) -> list[Candidate]:
    """All schedules that may be tuned over: candidates, then their variants, each once."""
    found = {candidate.schedule: candidate for candidate in candidates}
    for candidate in candidates:
        for schedule in getattr(candidate.schedule, "variants", tuple)():
            found.setdefault(schedule, Candidate(schedule, candidate.work))
    return list(found.values())


def draw(family: KernelFamily, layer: Any, machine: Processor, random: Random) -> Any:
    """A random schedule that computes the layer; or why the family has none."""
    candidates = offered(family, layer, machine)
    return candidates if isinstance(candidates, str) else random.choice(with_variants(candidates)).schedule


def cheapest(family: KernelFamily, layer: Any, machine: Processor) -> tuple[Candidate, float] | str:
    """The cheapest schedule of a family and its cost; or why it has none for the layer."""
    candidates = offered(family, layer, machine)
    if isinstance(candidates, str):
        return candidates
    return min(((candidate, machine.cycles(candidate.work)) for candidate in candidates), key=lambda priced: priced[1])
