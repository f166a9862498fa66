"""What a compilation came to, for whoever asks."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pcc.codegen.machine_profile import MachineProfile
from pcc.ir.left_alone import LeftAlone
from pcc.package.layer_report import LayerReport, TuningUseRecord
from pcc.package.manifest import GpuRecord, Manifest
from pcc.passes.instruments import Verified
from pcc.target import Target


@dataclass(frozen=True)
class TargetReport:
    """What one target came to."""

    target: Target
    library_bytes: int
    weight_bytes: int
    """Of the library."""
    level_weight_bytes: int
    """What its code for this target reads of them."""
    arena_bytes: int
    arena_lower_bound: int
    """Bytes alive at the worst moment: no arena could be smaller."""
    thread_bytes: int
    """What each thread has besides."""
    prepared_bytes: int
    """Weights in the form that kernels read, where that is not shipped."""
    gpu: GpuRecord | None
    """The library's code for GPUs; of several levels the last has it."""
    kernels: int
    kernels_from_cache: int
    layers: Sequence[LayerReport]
    """As the manifest has them."""
    profile: MachineProfile
    """The costs that kernels were chosen by."""
    profile_file: Path | None
    """Where they were read from; None for pcc's own."""
    records_file: Path | None
    """The tuning records that came first; None where costs alone chose."""

    @property
    def families(self) -> Counter[str]:
        """How many convolutions and linear layers each kernel family runs."""
        return Counter(layer.choice.family for layer in self.layers if layer.choice)

    @property
    def tuning(self) -> Sequence[TuningUseRecord]:
        """What came of the tuning records of layers that have some."""
        return [layer.choice.tuning for layer in self.layers if layer.choice and layer.choice.tuning]


@dataclass
class CompileReport:
    """What a compilation made, and where its time went."""

    package: Path
    manifest: Manifest
    targets: list[TargetReport] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by step: ``import``, each pass by its name, ``lower``, ``verify``, ``kernels``, ``package``."""
    verified: list[Verified] = field(default_factory=list)
    """With ``verify_each``, or where nothing is pruned: each pass that ran on the graph, and its error."""
    left_alone: list[LeftAlone] = field(default_factory=list)
    """Layers to which a pass did nothing, convolutions that stay dense among them, and why."""
    warnings: list[str] = field(default_factory=list)
    """What was asked for and came to nothing, each in a line: pruning passes that pruned no layer."""
