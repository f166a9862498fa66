"""Writes a package folder: all of it, or nothing.

with new_package(out) as staging:      # refuses a path that cannot be written, before any work
    ...compile...
    build_package(spec, staging)
                                       # here the finished folder takes its name
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from errno import EDQUOT, ENOSPC
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pcc.codegen.emit_c import emit_model_c, lay_out_weights
from pcc.codegen.program import Call, Port, Program, View
from pcc.errors import PccError
from pcc.package.files import file_record
from pcc.package.header import model_header
from pcc.package.manifest import MANIFEST, CallRecord, Manifest, SelfTestRecord, TargetRecord, TensorRecord
from pcc.package.toolchain import RUNTIME, Progress, Toolchain, quiet
from pcc.package.weights import write_weights_object
from pcc.target import Target


@dataclass(frozen=True)
class TargetBuild:
    """One target's machine code: its program with planned memory, and the object files of the program's kernels."""

    target: Target
    program: Program
    objects: Sequence[Path]


@dataclass(frozen=True)
class SelfTest:
    """Inputs and the outputs they must give, in the order of the model's ports; ``tolerance`` is relative to the largest output value."""

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


@contextmanager
def new_package(out: Path) -> Iterator[Path]:
    """A folder to build a package in, beside ``out``; it becomes ``out`` if the block ends well and vanishes if it does not.

    An older package at ``out`` is replaced. Raises `PccError` at once if ``out`` cannot be written or is something else than a package.
    """
    out = Path(os.path.abspath(out))
    if out.exists() and not (out / MANIFEST).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise PccError(f"{out} exists and is not a pcc package: choose another output folder, or remove it")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise PccError(f"cannot write {out}: {error.strerror or error}") from None
    try:
        yield staging
        staging.chmod(0o755)
        _replace(staging, out)
    except OSError as error:
        if error.errno not in (ENOSPC, EDQUOT) and not str(error.filename).startswith((str(staging), str(out))):
            raise  # not ours: something that the block reads
        raise PccError(f"cannot write {out}: {error.strerror}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _replace(staging: Path, out: Path) -> None:
    """Gives the finished folder its name; the one that had it goes last."""
    if not out.exists():
        staging.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
    out.rename(old / "package")
    try:
        staging.rename(out)
    except BaseException:
        (old / "package").rename(out)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def build_package(spec: PackageSpec, folder: Path, progress: Progress = quiet) -> Manifest:
    """Compiles, links and writes everything into ``folder``, the manifest last."""
    _check(spec)
    targets = []
    for build in spec.builds:
        progress(f"linking {build.target.name}")
        targets.append(_build_target(spec.name, build, folder, progress))
    program = spec.builds[0].program
    _write_headers(spec, folder)
    if spec.ir:
        shutil.copytree(spec.ir, folder / "ir", dirs_exist_ok=True)
    if spec.labels is not None:
        (folder / "labels.txt").write_text("".join(f"{label}\n" for label in spec.labels), encoding="utf-8")
    manifest = Manifest(
        pcc_version=version("pcc"),
        name=spec.name,
        inputs=tuple(_tensor(port) for port in program.inputs),
        outputs=tuple(_tensor(port) for port in program.outputs),
        targets=tuple(targets),
        preprocessing=dict(spec.preprocessing) if spec.preprocessing is not None else None,
        labels="labels.txt" if spec.labels is not None else None,
        selftest=_write_selftest(spec.selftest, program, folder) if spec.selftest else None,
        notes=dict(spec.notes),
        files={path.relative_to(folder).as_posix(): file_record(path) for path in sorted(folder.rglob("*")) if path.is_file()},
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return manifest


def _check(spec: PackageSpec) -> None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", spec.name):
        raise PccError(f"'{spec.name}' cannot name a library: use letters, digits, '_' and '-', a letter first")
    for build in spec.builds:
        if build.program.name != spec.name:
            raise ValueError(f"the program for {build.target.name} is named {build.program.name}, the package {spec.name}")


def _build_target(name: str, build: TargetBuild, folder: Path, progress: Progress) -> TargetRecord:
    target, program = build.target, build.program
    library, runner = f"lib/{target.name}/lib{name}.so", f"bin/{target.name}/pcc-run"
    source = folder / "ir" / target.name / "model.c"
    for path in (folder / library, folder / runner, source):
        path.parent.mkdir(parents=True, exist_ok=True)
    weights = lay_out_weights(program)
    source.write_text(emit_model_c(program, target, weights))
    toolchain = Toolchain(target, progress)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".objects.") as made:
        model, constants = Path(made) / "model.o", Path(made) / "weights.o"
        toolchain.compile_model(source, model)
        write_weights_object(program, weights, target.arch, constants)
        toolchain.link_library(name, [model, *build.objects, constants], folder / library)
        toolchain.link_runner([model, *build.objects], folder / runner)
    return TargetRecord(
        name=target.name,
        cpu=target.cpu,
        isa=target.isa,
        library=library,
        runner=runner,
        arena_bytes=program.arena_bytes,
        weight_bytes=weights.nbytes,
        calls=tuple(_call(program, call) for call in program.calls),
    )


def _call(program: Program, call: Call) -> CallRecord:
    constants = {value.buffer for value in call.args.values() if isinstance(value, View) and program.buffers[value.buffer].role == "constant"}
    weight_bytes = sum(program.constants[name].nbytes for name in constants)
    return CallRecord(layer=call.layer, kernel=call.kernel.name, macs=call.macs, dense_macs=call.dense_macs, weight_bytes=weight_bytes)


def _tensor(port: Port) -> TensorRecord:
    return TensorRecord(name=port.name, shape=port.shape)


def _write_headers(spec: PackageSpec, folder: Path) -> None:
    include = folder / "include"
    include.mkdir()
    shutil.copyfile(RUNTIME / "pcc.h", include / "pcc.h")
    (include / f"{spec.name}.h").write_text(model_header(spec.builds[0].program))


def _write_selftest(test: SelfTest, program: Program, folder: Path) -> SelfTestRecord:
    """Raw tensors for the runner, and the tolerance as text beside them."""
    path = folder / "selftest"
    path.mkdir()
    for kind, ports, tensors in (("input", program.inputs, test.inputs), ("output", program.outputs, test.outputs)):
        for index, (port, tensor) in enumerate(zip(ports, tensors, strict=True)):
            if tuple(tensor.shape) != port.shape:
                raise ValueError(f"self-test {kind} '{port.name}' is {tuple(tensor.shape)}, the model's is {port.shape}")
            np.ascontiguousarray(tensor, "<f4").tofile(path / f"{kind}_{index}.bin")
    (path / "tolerance").write_text(f"{test.tolerance!r}\n")
    return SelfTestRecord(folder="selftest", tolerance=test.tolerance)
