"""The driver: frontend, passes, lowering, kernels, package. One call compiles a module for any number of targets."""

import copy
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor
from torch.fx import GraphModule

from pcc.any_batch import import_one_image
from pcc.codegen.emit_c import lay_out_weights
from pcc.codegen.gpu_backend import backend_named
from pcc.codegen.machine import MACHINES
from pcc.codegen.machine_profile import MachineProfile, machine_named
from pcc.codegen.objects import CompiledKernel, compile_kernels
from pcc.codegen.plan_memory import memory_lower_bound
from pcc.codegen.print_program import print_program
from pcc.codegen.program import Program
from pcc.compile_report import CompileReport, TargetReport
from pcc.errors import PccError
from pcc.files import check_writable, writing
from pcc.frontend.imported import ImportedModel, import_model
from pcc.frontend.supported import refuse_unsupported
from pcc.ir.dump import dump_graph, remove_dumps
from pcc.ir.graph import max_batch
from pcc.ir.left_alone import left_alone
from pcc.ir.verify import TOLERANCE, as_taken, relative_error, run_graph
from pcc.package.manifest import Manifest
from pcc.package.publish import new_package
from pcc.package.toolchain import Progress, quiet
from pcc.package.write import GpuBuild, PackageSpec, SelfTest, TargetBuild, build_package, package_files
from pcc.passes.instruments import DumpAfterEach, NotePruning, PrintAfter, VerifyEach
from pcc.passes.manager import Instrument, PassEvent
from pcc.passes.pipeline import DEFAULT_PIPELINE, SplitPipeline, parse_pipeline, prunes, split_pipeline
from pcc.passes.registry import pass_names
from pcc.planner import (
    Chooser,
    Clock,
    GpuPlan,
    check_precision,
    choosers,
    gpu_steps,
    leave_to_processor,
    lower_program,
    narrow_types,
    run_passes,
    split_at_target,
    steps_for,
)
from pcc.reporter import write_report
from pcc.scratch import temporary_folder
from pcc.target import TARGETS, Target

SELFTEST_IMAGES = 3
"""In the recorded input of a package for any batch: fewer than the maximum, mostly, and no multiple of a tile's
rows."""

FP16_TOLERANCE = 2e-2
"""Of the recorded output of a network in fp16: PyTorch's has each layer's sums rounded once, a kernel's after each
addition."""


def compile_model(
    model: Any,
    examples: Any = None,
    *,
    out: Path,
    targets: Sequence[Target],
    name: str,
    pipeline: str = DEFAULT_PIPELINE,
    preprocessing: BaseModel | None = None,
    labels: Sequence[str] | None = None,
    dump_ir: Path | None = None,
    print_ir_after: str | None = None,
    verify_each: bool | None = None,
    report: Path | None = None,
    machine_profile: str | None = None,
    tuning_records: str | None = None,
    progress: Progress = quiet,
    threads: int = 1,
    max_batch: int | None = None,
) -> CompileReport:
    """Compiles a model for inputs of exactly the examples' shapes, into a package at ``out`` (all of it or nothing).

    With ``max_batch``, for any first dimension up to it: the network must do the same for each image of a batch, and
    nothing else.

    ``model`` and ``examples`` are what `pcc.frontend.imported.import_model` takes: a module and example inputs, or a
    path. ``pipeline`` is the text of `pcc.passes.pipeline`; ``print_ir_after`` names a pass or is ``all``; ``threads``
    kernels compile at once. ``verify_each`` runs the graph after each pass and compares it with the model; if None,
    that is done where no pass prunes. ``report`` is where a page about the package goes, with a profile if this
    computer executes its code. ``machine_profile`` is a file of ``pcc tune --calibrate``, or ``built-in``; if None,
    each target has the one that is saved for its processor, else pcc's own. ``tuning_records`` is a file of ``pcc
    tune``, or ``none``; if None, the saved one. Nothing else from outside decides which kernels are chosen; the
    manifest records both. Raises `PccError` for what cannot be compiled or written.
    """
    targets = [level for target in targets for level in target.levels]
    steps = split_pipeline(parse_pipeline(pipeline))
    if not any(step.name == "plan-memory" for step in steps.program):
        raise PccError(
            "the pipeline has no plan-memory, and a library needs a place for each buffer: put plan-memory at its end"
        )
    _check_places(out, dump_ir, report)
    chooser_of = choosers(targets, steps.graph, machine_profile, tuning_records)
    check_precision(targets, steps.graph)
    profiles = {target: MachineProfile.of(machine_named(chooser.processor)) for target, chooser in chooser_of.items()}
    clock = Clock()
    with new_package(out, package_files(name, targets)) as folder, temporary_folder() as dumps:
        roots = [dumps, *([dump_ir] if dump_ir else [])]
        progress("importing the model")
        with clock.measure("import"):
            imported = (
                import_model(model, examples) if max_batch is None else import_one_image(model, examples, max_batch)
            )
        graph, samples = imported.graph, _sample_inputs(imported)
        for root in roots:
            remove_dumps(root, ("import", *pass_names()), (*TARGETS, "gpu"))
            dump_graph(root, 0, "import", graph)
        pruning = NotePruning()
        printing = [PrintAfter(print_ir_after)] if print_ir_after else []
        instruments: list[Instrument] = [
            *printing,
            refuse_unsupported,
            pruning,
        ]
        two_images = partial(import_model, model, examples, 2)
        verifier = _verifier(verify_each, steps, graph, samples, two_images, clock)

        progress("running passes")
        shared, by_chooser = _plan(graph, name, steps, chooser_of, roots, instruments, verifier, clock)
        if print_ir_after in ("all", *(step.name for step in steps.program)):
            for _, program in by_chooser.values():
                print(print_program(program))

        planned = {target: by_chooser[chooser_of[target]] for target in targets}
        compiled: list[tuple[Target, list[CompiledKernel]]] = []
        for target, (_, program) in planned.items():
            progress(f"compiling {len(program.kernels)} kernels for {target.name}")
            with clock.measure("kernels"):
                compiled.append((target, compile_kernels(program.kernels, target, threads)))
            for root in roots:
                _dump_program(root / target.folder, program)
            if dump_ir:
                _dump_kernels(dump_ir / target.folder / "kernels", compiled[-1][1])

        gpu_plans = _gpu_plans(shared, name, steps, targets, tuning_records, printing, verifier, roots, progress, clock)
        gpu_builds = _gpu_builds(gpu_plans, planned, chooser_of, roots, dump_ir, clock)

        with clock.measure("package"):
            objects = {target: [kernel.object for kernel in kernels] for target, kernels in compiled}
            builds = [
                TargetBuild(
                    target,
                    program,
                    objects[target],
                    graph,
                    profiles[target],
                    gpu_builds[target],
                )
                for target, (graph, program) in planned.items()
            ]
            selected = next(iter(by_chooser.values()))[0]
            selftest = _selftest(selected, samples, FP16_TOLERANCE if narrow_types(steps.graph) else TOLERANCE)
            notes = {"pipeline": pipeline, "origin": imported.origin}
            described = None if preprocessing is None else preprocessing.model_dump(mode="json")
            manifest = build_package(
                PackageSpec(name, builds, described, labels, selftest, roots[0], notes), folder, progress
            )
        progress("publishing the package")
    reports = [
        _report(target, planned[target][1], kernels, manifest, profiles[target], chooser_of[target])
        for target, kernels in compiled
    ]
    alone = dict.fromkeys(layer for graph, _ in by_chooser.values() for layer in left_alone(graph))
    compiled_report = CompileReport(
        out, manifest, reports, clock.seconds, verifier.results if verifier else [], list(alone), pruning.warnings
    )
    if report:
        progress("writing the report")
        write_report(report, compiled_report, {target: graph for target, (graph, _) in planned.items()})
    return compiled_report


def _check_places(package: Path, dumps: Path | None, report: Path | None) -> None:
    """`PccError` for what would be written into the package, which is a folder of known files, and for a report that
    could not be written."""
    for what, place in {"dumps": dumps, "report": report}.items():
        if place and place.absolute().is_relative_to(package.absolute()):
            raise PccError(f"the {what} would lie in the package: choose a place outside of {package}")
    if report:
        if report.suffix.lower() not in (".html", ".htm"):  # it might be the model's own file
            raise PccError(f"report '{report}': give a file that ends in .html")
        check_writable(report, "the report")


def _plan(
    graph: GraphModule,
    name: str,
    steps: SplitPipeline,
    chooser_of: Mapping[Target, Chooser],
    roots: Sequence[Path],
    instruments: Sequence[Instrument],
    verifier: VerifyEach | None,
    clock: Clock,
) -> tuple[GraphModule, dict[Chooser, tuple[GraphModule, Program]]]:
    """The graph after the passes that are the same for every target; and after all of them, with its program, for each
    way in which the targets choose kernels. The graphs of the first way are dumped beside the shared ones, those of
    others in the folder of a target that chooses so."""
    shared, selecting = split_at_target(steps.graph)
    dumping = list(map(DumpAfterEach, roots))
    graph = run_passes(shared, graph, [*dumping, *instruments, *_verifying(verifier, clock)], 0, clock)
    planned: dict[Chooser, tuple[GraphModule, Program]] = {}
    for chooser, target in {chooser: target for target, chooser in chooser_of.items()}.items():
        verifying = _verifying(
            copy.copy(verifier), clock
        )  # a lossy pass changes what is expected, and the next target may do without it
        if planned:
            dumping = [DumpAfterEach(root / target.folder) for root in roots]
        selected = run_passes(
            steps_for(target, selecting, chooser),
            copy.deepcopy(graph),
            [*dumping, *instruments, *verifying],
            len(shared),
            clock,
        )
        planned[chooser] = selected, lower_program(selected, name, target, steps.program, clock)
    return graph, planned


def _gpu_plans(
    graph: GraphModule,
    name: str,
    steps: SplitPipeline,
    targets: Sequence[Target],
    tuning_records: str | None,
    printing: Sequence[Instrument],
    verifier: VerifyEach | None,
    roots: Sequence[Path],
    progress: Progress,
    clock: Clock,
) -> dict[Path, GpuPlan]:
    """The graph for each family of GPUs that a target has, with the program that leaves nothing to the processor, by
    the folder that texts about it go to. ``graph`` is the one after the passes that are the same for every target. What
    is narrower for GPUs alone is verified here."""
    plans: dict[Path, GpuPlan] = {}
    shared, rest = split_at_target(steps.graph)
    narrowing = [step.name for step in rest if step.name == "reduce-precision"]
    for place in dict.fromkeys(place for target in targets for place in _gpu_folders(target)):
        _, interface, profile = place.parts
        progress(f"writing kernels for GPUs: {interface}, {profile}")
        is_new = verifier and not set(narrowing) <= {result.pass_name for result in verifier.results}
        of_gpu = run_passes(
            gpu_steps(rest, interface, profile, tuning_records),
            copy.deepcopy(graph),
            [
                *printing,
                *(DumpAfterEach(root / place) for root in roots),
                *_verifying(copy.copy(verifier) if is_new else None, clock),
            ],
            len(shared),
            clock,
        )
        with clock.measure(f"kernels for {interface}"):
            plans[place] = GpuPlan(of_gpu, backend_named(interface).lower(of_gpu, name))
    return plans


def _gpu_builds(
    plans: Mapping[Path, GpuPlan],
    planned: Mapping[Target, tuple[GraphModule, Program]],
    chooser_of: Mapping[Target, Chooser],
    roots: Sequence[Path],
    dump_ir: Path | None,
    clock: Clock,
) -> dict[Target, list[GpuBuild]]:
    """The programs of each target for its families of GPUs; one that leaves nothing to the processor serves all
    targets."""
    builds: dict[Target, list[GpuBuild]] = {}
    serving: dict[Path, GpuBuild] = {}
    for target, (graph, program) in planned.items():
        builds[target] = []
        for place in _gpu_folders(target):
            _, interface, profile = place.parts
            with clock.measure(f"kernels for {interface}"):
                plan = leave_to_processor(plans[place], profile, target, graph, program, chooser_of[target])
                folder = place / target.folder if plan.host else place
                if folder not in serving:
                    artefact = backend_named(interface).compile(plan.program, profile)
                    isa = plan.host.isa if plan.host else ""
                    serving[folder] = GpuBuild(replace(artefact, isa=isa), plan.graph, program if isa else None)
                    _dump_gpu(folder, serving[folder], backend_named(interface).suffix, roots, dump_ir)
            builds[target].append(serving[folder])
    return builds


def _gpu_folders(target: Target) -> list[Path]:
    """``gpu/INTERFACE/PROFILE`` for each program that a target's library has for GPUs."""
    return [Path("gpu", target.gpu.interface, profile) for profile in target.gpu.profiles] if target.gpu else []


def _verifier(
    verify_each: bool | None,
    steps: SplitPipeline,
    graph: GraphModule,
    samples: Sequence[Tensor],
    two_images: Callable[[], ImportedModel],
    clock: Clock,
) -> VerifyEach | None:
    """The verifier, where one is asked for, or nothing is said and no pass prunes. A graph of one image is compared
    with the model for two, of which it was made."""
    if verify_each is False or (verify_each is None and any(map(prunes, steps.graph))):
        return None
    with clock.measure("verify"):
        if max_batch(graph):
            _check_images(two_images().graph, graph, samples)
        return VerifyEach(graph, samples)


def _check_images(batch: GraphModule, graph: GraphModule, samples: Sequence[Tensor]) -> None:
    """`PccError` where a model for two images, as it was imported, computes something else than its graph of one."""
    images = [as_taken(graph, [sample.roll(image) for sample in samples]) for image in range(2)]
    expected = run_graph(batch, [torch.cat(pair) for pair in zip(*images, strict=True)])
    found = [torch.cat(pair) for pair in zip(*(run_graph(graph, image) for image in images), strict=True)]
    if not (error := relative_error(found, expected)) <= TOLERANCE:
        raise PccError(
            f"the graph of one image computes something else than the model: relative error {error:.2g} (--no-verify "
            "compiles it all the same)"
        )


def _verifying(verifier: VerifyEach | None, clock: Clock) -> list[Instrument]:
    """The verifier, timed."""

    def verify(event: PassEvent) -> None:
        assert verifier is not None
        with clock.measure("verify"):
            verifier(event)

    return [verify] if verifier else []


def _selftest(graph: GraphModule, samples: Sequence[Tensor], tolerance: float) -> SelfTest:
    """The samples and what the graph gives for them; of a graph for any batch, for a few images, all of them
    different."""
    if not max_batch(graph):
        taken = as_taken(graph, samples)
        return SelfTest(
            [sample.numpy() for sample in taken], [result.numpy() for result in run_graph(graph, taken)], tolerance
        )
    images = [
        as_taken(graph, [sample.roll(image) for sample in samples])
        for image in range(min(max_batch(graph), SELFTEST_IMAGES))
    ]
    results = [run_graph(graph, image) for image in images]
    inputs, outputs = (
        [torch.cat(parts).numpy() for parts in zip(*tensors, strict=True)] for tensors in (images, results)
    )
    return SelfTest(inputs, outputs, tolerance)


def _sample_inputs(model: ImportedModel) -> list[Tensor]:
    """Inputs to verify and record with, from a fixed seed; no whole number is 0 where the model divides by one."""
    generator = torch.Generator().manual_seed(0)
    samples = [taken.sample(generator) for taken in model.inputs]
    if all(sample.is_floating_point() for sample in samples):
        return samples
    try:
        run_graph(model.graph, samples)
    except RuntimeError as error:
        if "ZeroDivisionError" not in str(error):
            raise
        return [
            sample if sample.is_floating_point() else sample.where(sample != 0, torch.ones_like(sample))
            for sample in samples
        ]
    return samples


def _dump_program(folder: Path, program: Program) -> None:
    with _dumping(folder):
        (folder / "program.txt").write_text(print_program(program), encoding="utf-8")


def _dump_kernels(folder: Path, kernels: Sequence[CompiledKernel]) -> None:
    with _dumping(folder):
        for kernel in kernels:
            for suffix, text in kernel.texts.items():
                shutil.copyfile(text, folder / f"{kernel.name}.{suffix}")


def _dump_gpu(place: Path, build: GpuBuild, suffix: str, roots: Sequence[Path], dump_ir: Path | None) -> None:
    """The program of a GPU, as `_dump_program` has it, and in what is dumped for the user its kernels."""
    for root in roots:
        _dump_program(root / place, build.artefact.program)
    if dump_ir is None:
        return
    folder = dump_ir / place / "kernels"
    with _dumping(folder):
        for kernel in build.artefact.kernels:
            (folder / f"{kernel.name}.{suffix}").write_text(kernel.code, encoding="ascii")


@contextmanager
def _dumping(folder: Path) -> Generator[None]:
    """A folder that is there; `PccError` if it or what the block puts there cannot be written."""
    with writing(f"the dump '{folder}'"):
        folder.mkdir(parents=True, exist_ok=True)
        yield


def _report(
    target: Target,
    program: Program,
    kernels: Sequence[CompiledKernel],
    manifest: Manifest,
    profile: MachineProfile,
    chooser: Chooser,
) -> TargetReport:
    record = next(record for record in manifest.targets if record.name == target.name)
    is_baseline = target.cpu == record.cpu
    return TargetReport(
        target=target,
        library_bytes=manifest.files[record.library].size,
        weight_bytes=record.weight_bytes,
        level_weight_bytes=lay_out_weights(program).nbytes,
        arena_bytes=program.arena_bytes,
        arena_lower_bound=memory_lower_bound(program),
        thread_bytes=program.thread_bytes,
        prepared_bytes=program.prepared_bytes,
        gpu=record.gpu if is_baseline else None,
        kernels=len(kernels),
        kernels_from_cache=sum(kernel.from_cache for kernel in kernels),
        layers=record.level(f"{target.name}, {target.cpu}").layers,
        profile=profile,
        profile_file=None if chooser.processor in MACHINES else Path(chooser.processor),
        records_file=Path(chooser.records) if chooser.records else None,
    )
