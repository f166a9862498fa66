"""From a model to its package, step by step."""

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from torch.fx import GraphModule

from pcc.any_batch import import_one_image
from pcc.codegen.emit_c import lay_out_weights
from pcc.codegen.machine import MACHINES
from pcc.codegen.machine_profile import MachineProfile, machine_named
from pcc.codegen.objects import CompiledKernel, compile_kernels
from pcc.codegen.plan_memory import memory_lower_bound
from pcc.codegen.print_program import print_program
from pcc.codegen.program import Program
from pcc.compile_report import CompileReport, TargetReport
from pcc.compiler.dumps import dump_kernels, dump_program
from pcc.compiler.gpus import build_gpus, plan_gpus
from pcc.compiler.samples import FP16_TOLERANCE, sample_inputs, selftest_of
from pcc.compiler.verify import timed, verifier_for
from pcc.errors import PccError
from pcc.files import check_writable
from pcc.frontend.imported import import_model
from pcc.frontend.supported import refuse_unsupported
from pcc.ir.dump import dump_graph, remove_dumps
from pcc.ir.left_alone import left_alone
from pcc.ir.verify import TOLERANCE
from pcc.package.manifest import Manifest
from pcc.package.publish import new_package
from pcc.package.spec import PackageSpec, TargetBuild
from pcc.package.write import build_package, package_files
from pcc.passes.instruments import DumpAfterEach, NotePruning, PrintAfter, VerifyEach
from pcc.passes.manager import Instrument
from pcc.passes.pipeline import DEFAULT_PIPELINE, SplitPipeline, parse_pipeline, split_pipeline
from pcc.passes.registry import pass_names
from pcc.planner import (
    Chooser,
    Clock,
    check_precision,
    choosers,
    lower_program,
    narrow_types,
    run_passes,
    split_at_target,
    steps_for,
)
from pcc.progress import Progress, quiet
from pcc.reporter import write_report
from pcc.scratch import temporary_folder
from pcc.target import TARGETS, Target


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
        graph, samples = imported.graph, sample_inputs(imported)
        for root in roots:
            remove_dumps(root, ("import", *pass_names()), (*TARGETS, "gpu"))
            dump_graph(root, 0, "import", graph)
        pruning = NotePruning()
        printing = [PrintAfter(print_ir_after)] if print_ir_after else []
        instruments: list[Instrument] = [*printing, refuse_unsupported, pruning]
        two_images = partial(import_model, model, examples, 2)
        verifier = verifier_for(verify_each, steps, graph, samples, two_images, clock)

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
                dump_program(root / target.folder, program)
            if dump_ir:
                dump_kernels(dump_ir / target.folder / "kernels", compiled[-1][1])

        gpu_plans = plan_gpus(shared, name, steps, targets, tuning_records, printing, verifier, roots, progress, clock)
        gpu_builds = build_gpus(gpu_plans, planned, chooser_of, roots, dump_ir, clock)

        with clock.measure("package"):
            objects = {target: [kernel.object for kernel in kernels] for target, kernels in compiled}
            builds = [
                TargetBuild(target, program, objects[target], graph, profiles[target], gpu_builds[target])
                for target, (graph, program) in planned.items()
            ]
            selected = next(iter(by_chooser.values()))[0]
            selftest = selftest_of(selected, samples, FP16_TOLERANCE if narrow_types(steps.graph) else TOLERANCE)
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
    graph = run_passes(shared, graph, [*dumping, *instruments, *timed(verifier, clock)], 0, clock)
    planned: dict[Chooser, tuple[GraphModule, Program]] = {}
    for chooser, target in {chooser: target for target, chooser in chooser_of.items()}.items():
        # A lossy pass changes what is expected, and the next target may do without it.
        verifying = timed(copy.copy(verifier), clock)
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
