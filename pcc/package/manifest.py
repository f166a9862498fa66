"""``manifest.json``: what a package says about itself. The schema version grows when an old reader would misread a new
package."""

from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from pcc.dtype import DTYPES, FLOAT32
from pcc.errors import PccError
from pcc.package.batches import Batches
from pcc.package.layer_report import CallRecord, LayerReport
from pcc.preprocessing import PreprocessingData

MANIFEST = "manifest.json"
SCHEMA_VERSION = 2
"""2 has layers with their calls, 1 had calls alone."""


def _inside(path: str) -> str:
    """A path that cannot lead out of the package."""
    parts = PurePosixPath(path).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in path or path != "/".join(parts):
        raise ValueError(f"'{path[:100]}' is not the path of a file in the package")
    return path


def _valid_preprocessing(content: dict[str, Any]) -> dict[str, Any]:
    PreprocessingData.model_validate(content)
    return content


def _element_type(name: str) -> str:
    if name not in DTYPES:
        raise ValueError(f"'{name[:100]}' is not an element type")
    return name


Inside = Annotated[str, AfterValidator(_inside)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class TensorRecord(_Record):
    """An input or output: contiguous, outermost dimension first."""

    name: str
    shape: tuple[PositiveInt, ...]
    dtype: Annotated[str, AfterValidator(_element_type)] = FLOAT32.name
    """A name of `pcc.dtype`."""


class LevelRecord(_Record):
    """A library's code for one instruction set, and what it needs."""

    cpu: str
    isa: str
    arena_bytes: int
    thread_bytes: int = 0
    prepared_bytes: int = 0
    """Weights in the form that kernels read, where that is not shipped: memory that contexts share."""
    profile: dict[str, Any] | None = None
    """The costs that kernels were chosen by: a `pcc.codegen.machine_profile.MachineProfile`, which as a file chooses
    the same ones again."""
    layers: tuple[LayerReport, ...] = ()
    """In the order they run."""

    @property
    def calls(self) -> tuple[CallRecord, ...]:
        """All kernel calls, in order."""
        return tuple(call for layer in self.layers for call in layer.calls)


class GpuProgramRecord(_Record):
    """A library's code for a family of GPUs."""

    profile: str
    cpu: str | None = None
    """The processor beside which it runs: some of its calls are that one's. None: they are all the GPU's."""
    arena_bytes: int
    layers: tuple[LayerReport, ...] = ()

    @property
    def serves(self) -> str:
        """The family of GPUs, and the processor if there is one."""
        return f"{self.profile} beside {self.cpu}" if self.cpu else self.profile

    @property
    def calls(self) -> tuple[CallRecord, ...]:
        """All kernel calls, in order."""
        return tuple(call for layer in self.layers for call in layer.calls)


class GpuRecord(_Record):
    """A library's code for GPUs: the device's name chooses the program at run time."""

    interface: str
    """How the GPU is programmed: ``opencl``."""
    programs: tuple[GpuProgramRecord, ...]
    runner: Inside | None
    """A dynamic program, which can open a driver; None for Android where it was linked without an NDK."""

    def program(self, device: str, target: str) -> GpuProgramRecord:
        """What runs, as a context (``pcc_device``) and its library (``pcc_target_name``) say it; `PccError` for code
        that the manifest does not have."""
        profile = device.rpartition(", code for ")[2].partition(";")[0]
        for program in self.programs:
            if program.profile == profile and (program.cpu is None or target.endswith(f", {program.cpu}")):
                return program
        raise PccError(f"the library runs code for {profile[:100]}, which its manifest does not have: compile it again")


class TargetRecord(LevelRecord):
    """One library: where it lies in the package, and its code for the instruction set that every processor has which it
    runs on."""

    name: str
    library: Inside
    runner: Inside
    weight_bytes: int
    """Of all its code: constants that several instruction sets share are there once."""
    gpu: GpuRecord | None = None
    better: tuple[LevelRecord, ...] = ()
    """Code for other instruction sets, best first: the first that the processor has is what runs."""

    def level(self, target: str) -> LevelRecord:
        """The code that a library says it runs (``pcc_target_name``); `PccError` for code that it has not."""
        for level in (*self.better, self):
            if target == f"{self.name}, {level.cpu}":
                return level
        raise PccError(
            f"{self.library} runs code for {target[:100]}, which its manifest does not have: compile it again"
        )


class SelfTestRecord(_Record):
    """Recorded tensors, ``FOLDER/input_N.bin`` and ``FOLDER/output_N.bin`` as raw little-endian elements, and the
    relative error allowed."""

    folder: Inside
    tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class FileRecord(_Record):
    sha256: str
    size: NonNegativeInt


class Manifest(_Record):
    """The whole of ``manifest.json``. Paths are relative to the package, with forward slashes."""

    schema_version: int = SCHEMA_VERSION
    pcc_version: str
    name: str
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    max_batch: PositiveInt | None = None
    """The libraries run any batch up to it, for which the shapes are; None: they run the batch of the shapes."""
    targets: tuple[TargetRecord, ...]
    preprocessing: Annotated[dict[str, Any], AfterValidator(_valid_preprocessing)] | None = None
    """How a photo becomes the input: a `PreprocessingData`."""
    labels: Inside | None = None
    """The file with one class name a line."""
    selftest: SelfTestRecord | None = None
    notes: dict[str, Any] = {}
    """Anything else worth keeping: pipeline, options, source of the weights."""
    files: dict[Inside, FileRecord]
    """Every file but the manifest."""

    @property
    def batches(self) -> Batches:
        """What batches the libraries run."""
        return Batches(self.name, self.max_batch)
