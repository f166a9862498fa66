"""Writes all that is in a package, into a folder of `pcc.package.publish`."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import groupby
from math import prod
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from pcc.codegen.emit_c import emit_model_c, lay_out_weights
from pcc.codegen.emit_device_c import emit_device_c
from pcc.codegen.gpu_backend import GpuArtefact, backend_named
from pcc.codegen.program import Port, Program
from pcc.codegen.share_weights import share_weights
from pcc.errors import PccError, first_problem
from pcc.package.files import file_record
from pcc.package.header import model_header
from pcc.package.layer_report import layer_reports
from pcc.package.manifest import (
    MANIFEST,
    GpuProgramRecord,
    GpuRecord,
    LevelRecord,
    Manifest,
    SelfTestRecord,
    TargetRecord,
    TensorRecord,
)
from pcc.package.spec import GpuBuild, PackageSpec, SelfTest, TargetBuild
from pcc.package.toolchain import RUNTIME, Toolchain
from pcc.package.weights import write_weights_object
from pcc.preprocessing import PreprocessingData
from pcc.progress import Progress, quiet
from pcc.scratch import scratch_folder
from pcc.target import Target

GPU_TOLERANCE = 1e-3
"""Of a GPU's outputs against the processor's, relative to the largest; what the package's self-test allows, where that
is more."""


def package_files(name: str, targets: Sequence[Target]) -> list[str]:
    """The paths of a package's files, for `new_package`. `PccError` if the name cannot be a library's."""
    _check_name(name)
    files = [MANIFEST, "labels.txt", "include/pcc.h", f"include/{name}.h", "ir/[0-9][0-9][0-9]_*.txt"]
    files += ["selftest/tolerance", "selftest/input_[0-9]*.bin", "selftest/output_[0-9]*.bin"]
    for target in targets:
        files += [
            _library(name, target),
            _runner(target),
            f"ir/{target.name}/model.c",
            f"ir/{target.folder}/program.txt",
        ]
        if target.gpu:
            files += [_gpu_runner(target), f"ir/{target.name}/device.c"]
            files += [
                f"ir/gpu/{target.gpu.interface}/{profile}/{text}"
                for profile in target.gpu.profiles
                for text in ("[0-9][0-9][0-9]_*.txt", "program.txt", f"{target.folder}/program.txt")
            ]
    return files


def _library(name: str, target: Target) -> str:
    return f"lib/{target.name}/lib{name}.so"


def _runner(target: Target) -> str:
    return f"bin/{target.name}/pcc-run"


def _gpu_runner(target: Target) -> str:
    return f"bin/{target.name}/pcc-run-gpu"


def build_package(spec: PackageSpec, folder: Path, progress: Progress = quiet) -> Manifest:
    """Compiles, links and writes everything into ``folder``, the manifest last."""
    _check(spec)
    targets = []
    for target, builds in groupby(spec.builds, key=lambda build: build.target.name):
        progress(f"linking {target}")
        targets.append(_build_target(spec.name, list(builds), spec.selftest, folder, progress))
    program = spec.builds[0].program
    _write_headers(spec, folder)
    if spec.ir:
        shutil.copytree(spec.ir, folder / "ir", dirs_exist_ok=True)
    if spec.labels is not None:
        (folder / "labels.txt").write_text("".join(f"{label}\n" for label in spec.labels), encoding="utf-8")
    manifest = Manifest(
        pcc_version=version("pcc"),
        name=spec.name,
        inputs=tuple(_tensor(program, port) for port in program.inputs),
        outputs=tuple(_tensor(program, port) for port in program.outputs),
        max_batch=program.max_batch or None,
        targets=tuple(targets),
        preprocessing=dict(spec.preprocessing) if spec.preprocessing is not None else None,
        labels="labels.txt" if spec.labels is not None else None,
        selftest=_write_selftest(spec.selftest, program, folder) if spec.selftest else None,
        notes=dict(spec.notes),
        files={
            path.relative_to(folder).as_posix(): file_record(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return manifest


def _check(spec: PackageSpec) -> None:
    _check_name(spec.name)
    if spec.preprocessing is not None:
        try:
            PreprocessingData.model_validate(dict(spec.preprocessing))
        except ValidationError as error:
            raise PccError(f"the preprocessing is not one that a package can hold: {first_problem(error)}") from None
    for number, label in enumerate(spec.labels or ()):
        if "\n" in label:
            raise PccError(f"label {number} has a line break: labels are kept one a line")
    for build in spec.builds:
        if build.program.name != spec.name:
            raise ValueError(
                f"the program for {build.target.name} is named {build.program.name}, the package {spec.name}"
            )


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise PccError(f"'{name}' cannot name a library: use letters, digits, '_' and '-', a letter first")
    if name.lower() == "pcc":
        raise PccError(f"'{name}' cannot name a library: its header would take the place of the runtime's own, pcc.h")


def _build_target(
    name: str,
    builds: Sequence[TargetBuild],
    test: SelfTest | None,
    folder: Path,
    progress: Progress,
) -> TargetRecord:
    target, objects = builds[-1].target, [path for build in builds for path in build.objects]
    library, runner = _library(name, target), _runner(target)
    source = folder / "ir" / target.name / "model.c"
    for path in (folder / library, folder / runner, source):
        path.parent.mkdir(parents=True, exist_ok=True)
    programs = [build.program for build in builds]
    backend = backend_named(target.gpu.interface) if target.gpu else None
    gpu, artefacts = _gpu_programs(builds), list[GpuArtefact]()
    if backend:
        artefacts = [
            replace(
                backend.compile(share_weights(each.artefact.program, programs), each.artefact.profile),
                isa=each.artefact.isa,
            )
            for each in gpu
        ]
    recorded = _recorded(test, builds[-1].program) if test and artefacts else {}
    weights = lay_out_weights(*(each.program for each in (*builds, *artefacts)), others=list(recorded.values()))
    source.write_text(emit_model_c([(build.target, build.program) for build in builds], weights), encoding="ascii")
    toolchain = Toolchain(target, progress)
    with scratch_folder(folder) as scratch:
        model, constants = scratch / "model.o", scratch / "weights.o"
        toolchain.compile_model(source, model)
        write_weights_object(weights, target.arch, constants)
        tables = []
        if backend and artefacts:
            of_programs, of_test = weights.offsets[len(builds) :][: len(artefacts)], weights.offsets[-len(recorded) :]
            text = emit_device_c(
                artefacts,
                backend.runtime,
                of_programs,
                max(GPU_TOLERANCE, test.tolerance if test else 0),
                {
                    kind: [(offsets[name], values.nbytes) for name, values in tensors.items()]
                    for (kind, tensors), offsets in zip(recorded.items(), of_test, strict=False)
                },
            )
            source.with_name("device.c").write_text(text, encoding="ascii")
            tables = [scratch / "device.o"]
            toolchain.compile_model(source.with_name("device.c"), *tables)
        toolchain.link_library(name, [model, *objects, constants, *tables], folder / library, has_gpu=bool(tables))
        toolchain.link_runner([model, *objects], folder / runner)
        has_gpu_runner = bool(tables) and toolchain.link_gpu_runner(
            [model, *objects, *tables], folder / _gpu_runner(target)
        )
    *better, baseline = (_level(build) for build in builds)
    return TargetRecord(
        **vars(baseline),
        name=target.name,
        library=library,
        runner=runner,
        weight_bytes=weights.nbytes,
        gpu=_gpu(builds, gpu, _gpu_runner(target) if has_gpu_runner else None) if artefacts else None,
        better=tuple(better),
    )


def _gpu_programs(builds: Sequence[TargetBuild]) -> list[GpuBuild]:
    """Those of a library, each once; first those that call steps of one of its forms."""
    found = {(gpu.artefact.profile, gpu.artefact.isa): gpu for build in builds for gpu in build.gpu}
    return sorted(found.values(), key=lambda gpu: not gpu.artefact.isa)


def _recorded(test: SelfTest, program: Program) -> dict[str, dict[str, np.ndarray]]:
    """The self-test's inputs and outputs of one image, by which a library decides whether it may trust a GPU."""
    return {
        kind: {
            f"{kind}.{port.name}": np.ascontiguousarray(tensor, port.dtype.numpy).ravel()[: prod(port.shape)]
            for port, tensor in zip(ports, tensors, strict=True)
        }
        for kind, ports, tensors in (
            ("inputs", program.inputs, test.inputs),
            ("outputs", program.outputs, test.outputs),
        )
    }


def _level(build: TargetBuild) -> LevelRecord:
    target, program = build.target, build.program
    return LevelRecord(
        cpu=target.cpu,
        isa=target.isa,
        arena_bytes=program.arena_bytes,
        thread_bytes=program.thread_bytes,
        prepared_bytes=program.prepared_bytes,
        profile=None if build.profile is None else build.profile.model_dump(),
        layers=layer_reports(program, build.graph),
    )


def _gpu(builds: Sequence[TargetBuild], gpu: Sequence[GpuBuild], runner: str | None) -> GpuRecord:
    target, cpus = builds[-1].target, {build.target.isa: build.target.cpu for build in builds}
    assert target.gpu is not None
    programs = (
        GpuProgramRecord(
            profile=each.artefact.profile,
            cpu=cpus.get(each.artefact.isa),
            arena_bytes=each.artefact.program.arena_bytes,
            layers=layer_reports(each.artefact.program, each.graph, each.host),
        )
        for each in gpu
    )
    return GpuRecord(interface=target.gpu.interface, programs=tuple(programs), runner=runner)


def _tensor(program: Program, port: Port) -> TensorRecord:
    return TensorRecord(name=port.name, shape=program.largest_shape(port), dtype=port.dtype.name)


def _write_headers(spec: PackageSpec, folder: Path) -> None:
    include = folder / "include"
    include.mkdir()
    shutil.copyfile(RUNTIME / "pcc.h", include / "pcc.h")
    (include / f"{spec.name}.h").write_text(model_header(spec.builds[0].program), encoding="ascii")


def _write_selftest(test: SelfTest, program: Program, folder: Path) -> SelfTestRecord:
    """Raw tensors for the runner, and the tolerance as text beside them."""
    path = folder / "selftest"
    path.mkdir()
    for kind, ports, tensors in (("input", program.inputs, test.inputs), ("output", program.outputs, test.outputs)):
        for index, (port, tensor) in enumerate(zip(ports, tensors, strict=True)):
            if tuple(tensor.shape)[bool(program.max_batch) :] != port.shape[bool(program.max_batch) :]:
                raise ValueError(
                    f"self-test {kind} '{port.name}' is {tuple(tensor.shape)}, the model's is {port.shape}"
                )
            np.ascontiguousarray(tensor, port.dtype.numpy).tofile(path / f"{kind}_{index}.bin")
    (path / "tolerance").write_text(f"{test.tolerance!r}\n")
    return SelfTestRecord(folder="selftest", tolerance=test.tolerance)
