"""Kernel families: ways to compute a layer. Each offers schedules with what they cost, and writes the calls of the one
that is chosen.

A family is an object in a file of its own; `OWN` names pcc's, the entry points of group ``pcc.kernel_families`` those
of other packages. Nothing else knows which there are: select-kernels asks all that take the layer and its weight,
lowering calls the one that was chosen.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from random import Random
from typing import Any, Protocol

from pcc.codegen.layers import Conv2d, Linear
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import ProgramBuilder
from pcc.dtype import DType
from pcc.errors import PccError

ENTRY_POINT_GROUP = "pcc.kernel_families"

OWN: dict[str, str] = {
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
}
"""pcc's families: where in `pcc.codegen.kernels` each is (module:object)."""

WeightFormat = str
"""How a family takes its weight: ``dense``, an array of the layer's shape, or the name of a format
(`pcc.sparsity.formats`)."""


@dataclass(frozen=True)
class Candidate:
    """A schedule of a family for a layer."""

    schedule: Any
    """A frozen dataclass of the family's; ``str`` describes it in a few words. It may have ``variants()``: schedules
    that compute the same and that costs do not tell apart."""
    work: Work
    """What it executes, for all images of the layer."""


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

    def candidates(self, layer: Any, machine: Machine) -> Sequence[Candidate] | str:
        """The schedules worth pricing, or why the family cannot compute this layer. Sizes, strides and weights of the
        layer count, not its places."""
        ...

    def emit(self, layer: Any, schedule: Any, b: ProgramBuilder) -> None:
        """Records the calls that compute ``layer.y``."""
        ...


@cache
def families() -> dict[str, KernelFamily]:
    """All families by name, imported now: pcc's own, then those of other packages. `PccError` for one that cannot be
    loaded."""
    found: dict[str, KernelFamily] = {}
    for name, place in OWN.items():
        module, _, family = place.partition(":")
        found[name] = getattr(importlib.import_module(f"pcc.codegen.kernels.{module}"), family)
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        try:
            found.setdefault(point.name, point.load())
        except Exception as error:
            raise PccError(f"kernel family {point.name} of {point.value} cannot be loaded: {error}") from error
    return found


def family_named(name: str) -> KernelFamily:
    """The family of that name; `PccError` where there is none."""
    if name not in families():
        raise PccError(f"unknown kernel family '{name}': choose one of {', '.join(families())}")
    return families()[name]


def offered(family: KernelFamily, layer: Any, machine: Machine) -> Sequence[Candidate] | str:
    """The schedules of a family that are worth pricing, or why it has none for the layer."""
    if layer.x.dtype not in family.dtypes:
        return f"{family.name} takes {' or '.join(map(str, family.dtypes))}, not {layer.x.dtype}"
    if not machine.isa.computes_in(layer.x.dtype):
        return f"{machine.isa.name} does not compute in {layer.x.dtype}"
    return family.candidates(layer, machine)


def with_variants(candidates: Sequence[Candidate]) -> list[Candidate]:
    """All schedules that may be tuned over: candidates, then their variants, each once."""
    found = {candidate.schedule: candidate for candidate in candidates}
    for candidate in candidates:
        for schedule in getattr(candidate.schedule, "variants", tuple)():
            found.setdefault(schedule, Candidate(schedule, candidate.work))
    return list(found.values())


def draw(family: KernelFamily, layer: Any, machine: Machine, random: Random) -> Any:
    """A random schedule that computes the layer; or why the family has none."""
    candidates = offered(family, layer, machine)
    return candidates if isinstance(candidates, str) else random.choice(with_variants(candidates)).schedule


def cheapest(family: KernelFamily, layer: Any, machine: Machine) -> tuple[Candidate, float] | str:
    """The cheapest schedule of a family and its cycles; or why it has none for the layer."""
    candidates = offered(family, layer, machine)
    if isinstance(candidates, str):
        return candidates
    return min(((candidate, machine.cycles(candidate.work)) for candidate in candidates), key=lambda priced: priced[1])
