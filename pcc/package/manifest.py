"""``manifest.json``: what a package says about itself. The schema version grows when an old reader would misread a new package."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class TensorRecord(_Record):
    """An input or output: contiguous, outermost dimension first."""

    name: str
    shape: tuple[int, ...]
    dtype: Literal["float32"] = "float32"


class CallRecord(_Record):
    """One kernel call. Calls of one layer follow each other; `weight_bytes` counts the constants that the call reads (tables included)."""

    layer: str
    kernel: str
    macs: int
    dense_macs: int
    weight_bytes: int


class TargetRecord(_Record):
    """One library: where it lies in the package, and what it needs."""

    name: str
    cpu: str
    isa: str
    library: str
    runner: str
    arena_bytes: int
    weight_bytes: int
    calls: tuple[CallRecord, ...]


class SelfTestRecord(_Record):
    """Recorded tensors, ``FOLDER/input_N.bin`` and ``FOLDER/output_N.bin`` as raw little-endian fp32, and the relative error allowed."""

    folder: str
    tolerance: float


class FileRecord(_Record):
    sha256: str
    size: int


class Manifest(_Record):
    """The whole of ``manifest.json``. Paths are relative to the package, with forward slashes."""

    schema_version: int = SCHEMA_VERSION
    pcc_version: str
    name: str
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    targets: tuple[TargetRecord, ...]
    preprocessing: dict[str, Any] | None = None
    """How a photo becomes the input, as pcc.models wrote it."""
    labels: str | None = None
    """The file with one class name a line."""
    selftest: SelfTestRecord | None = None
    notes: dict[str, Any] = {}
    """Anything else worth keeping: pipeline, options, source of the weights."""
    files: dict[str, FileRecord]
    """Every file but the manifest."""
