"""The driver: frontend, passes, lowering, kernels, package. One call compiles a module for any number of targets."""

import copy
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor
from torch.fx import GraphModule

from pcc.any_batch import import_one_image
from pcc.codegen.emit_c import lay_out_weights
from pcc.codegen.isa import isa_named
from pcc.codegen.lower import lower
from pcc.codegen.machine import MACHINES
from pcc.codegen.machine_profile import MachineProfile, machine_named, processor_of
from pcc.codegen.objects import CompiledKernel, compile_kernels
from pcc.codegen.plan_memory import memory_lower_bound
from pcc.codegen.print_program import print_program
from pcc.codegen.program import Program
from pcc.codegen.tuning_records import records_of
from pcc.config import processor_words
from pcc.dtype import DType, dtype_named
from pcc.errors import PccError
from pcc.frontend.imported import ImportedModel, import_model
from pcc.frontend.supported import refuse_unsupported
from pcc.ir.dump import dump_graph
from pcc.ir.graph import max_batch
from pcc.ir.left_alone import LeftAlone, left_alone
from pcc.ir.verify import TOLERANCE, as_taken, run_graph
from pcc.package.layer_report import LayerReport, TuningUseRecord
from pcc.package.manifest import Manifest
from pcc.package.publish import new_package
from pcc.package.toolchain import Progress, quiet
from pcc.package.write import PackageSpec, SelfTest, TargetBuild, build_package, package_files
from pcc.passes.instruments import DumpAfterEach, NotePruning, PrintAfter, Verified, VerifyEach
from pcc.passes.manager import Instrument, PassManager
from pcc.passes.pipeline import DEFAULT_PIPELINE, parse_pipeline, split_pipeline
from pcc.scratch import temporary_folder
from pcc.target import ARM_CPUS, X86_CPUS, Target

SELFTEST_IMAGES = 3
"""In the recorded input of a package for any batch: fewer than the maximum, mostly, and no multiple of a tile's rows."""

FP16_TOLERANCE = 2e-2
"""Of the recorded output of a network in fp16: PyTorch's has each layer's sums rounded once, a kernel's after each addition."""


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
    """Wall time by step: ``import``, each pass by its name, ``lower``, ``kernels``, ``package``."""
    verified: list[Verified] = field(default_factory=list)
    """With ``verify_each``: each pass that ran on the graph, and its error."""
    left_alone: list[LeftAlone] = field(default_factory=list)
    """Layers to which a pass did nothing, convolutions that stay dense among them, and why."""
    warnings: list[str] = field(default_factory=list)
    """What was asked for and came to nothing, each in a line: pruning passes that pruned no layer."""


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
    verify_each: bool = False,
    machine_profile: str | None = None,
    tuning_records: str | None = None,
    progress: Progress = quiet,
    threads: int = 1,
    max_batch: int | None = None,
) -> CompileReport:
    """Compiles a model for inputs of exactly the examples' shapes, into a package at ``out`` (all of it or nothing).

    With ``max_batch``, for any first dimension up to it: the network must do the same for each image of a batch, and nothing else.

    ``model`` and ``examples`` are what `pcc.frontend.imported.import_model` takes: a module and example inputs, or a path.
    ``pipeline`` is the text of `pcc.passes.pipeline`; ``print_ir_after`` names a pass or is ``all``; ``threads`` kernels compile at once.
    ``machine_profile`` is a file of ``pcc tune --calibrate``, or ``built-in``; if None, each target has the one that is saved for its processor, else
    pcc's own. ``tuning_records`` is a file of ``pcc tune``, or ``none``; if None, the saved one. Nothing else from outside decides which kernels are
    chosen; the manifest records both.
    Raises `PccError` for what cannot be compiled or written.
    """
    targets = [level for target in targets for level in target.levels]
    steps = split_pipeline(parse_pipeline(pipeline))
    if not any(step.name == "plan-memory" for step in steps.program):
        raise PccError("the pipeline has no plan-memory, and a library needs a place for each buffer: put plan-memory at its end")
    if dump_ir and dump_ir.absolute().is_relative_to(out.absolute()):
        raise PccError(f"the dumps would lie in the package: choose a folder outside of {out} for them")
    choosers = _choosers(targets, steps.graph, machine_profile, tuning_records)
    _check_precision(targets, steps.graph)
    profiles = {target: MachineProfile.of(machine_named(chooser.processor)) for target, chooser in choosers.items()}
    clock = _Clock()
    with new_package(out, package_files(name, targets)) as folder, temporary_folder() as dumps:
        roots = [dumps, *([dump_ir] if dump_ir else [])]
        progress("importing the model")
        with clock.measure("import"):
            imported = import_model(model, examples) if max_batch is None else import_one_image(model, examples, max_batch)
        graph, samples = imported.graph, _sample_inputs(imported)
        for root in roots:
            dump_graph(root, 0, "import", graph)
        instruments: list[Instrument] = [DumpAfterEach(root) for root in roots]
        instruments += [PrintAfter(print_ir_after)] if print_ir_after else []
        pruning = NotePruning()
        instruments += [refuse_unsupported, pruning]
        verifier = VerifyEach(graph, samples) if verify_each else None
        instruments += [verifier] if verifier else []

        progress("running passes")
        shared, selecting = _split_at_target(steps.graph)
        graph = _run_passes(shared, graph, instruments, 0, clock)
        by_chooser: dict[_Chooser, tuple[GraphModule, Program]] = {}
        for chooser, target in {choosers[target]: target for target in targets}.items():
            steps_of_target = [step for step in selecting if not _is_beyond(target, step)]
            chosen = [replace(step, **{field: value for field, value in vars(chooser).items() if hasattr(step, field)}) for step in steps_of_target]
            selected = _run_passes(chosen, copy.deepcopy(graph), instruments, len(shared), clock)
            by_chooser[chooser] = selected, _lower(selected, name, target, steps.program, clock)
            if print_ir_after in ("all", *(step.name for step in steps.program)):
                print(print_program(by_chooser[chooser][1]))

        compiled: list[tuple[Target, list[CompiledKernel]]] = []
        for target in targets:
            program = by_chooser[choosers[target]][1]
            progress(f"compiling {len(program.kernels)} kernels for {target.name}")
            with clock.measure("kernels"):
                compiled.append((target, compile_kernels(program.kernels, target, threads)))
            for root in roots:
                _dump_program(root / target.folder, program)
            if dump_ir:
                _dump_kernels(dump_ir / target.folder / "kernels", compiled[-1][1])

        with clock.measure("package"):
            builds = []
            for target, kernels in compiled:
                selected, program = by_chooser[choosers[target]]
                builds.append(TargetBuild(target, program, [kernel.object for kernel in kernels], selected, profiles[target]))
            selected = next(iter(by_chooser.values()))[0]
            selftest = _selftest(selected, samples, FP16_TOLERANCE if _narrow_types(steps.graph) else TOLERANCE)
            notes = {"pipeline": pipeline, "origin": imported.origin}
            described = None if preprocessing is None else preprocessing.model_dump(mode="json")
            manifest = build_package(PackageSpec(name, builds, described, labels, selftest, roots[0], notes), folder, progress)
        progress("publishing the package")
    reports = [_report(target, by_chooser[choosers[target]][1], kernels, manifest, profiles[target], choosers[target]) for target, kernels in compiled]
    alone = dict.fromkeys(layer for graph, _ in by_chooser.values() for layer in left_alone(graph))
    return CompileReport(out, manifest, reports, clock.seconds, verifier.results if verifier else [], list(alone), pruning.warnings)


def open_graph(model: Any, examples: Any, pipeline: str, target: Target, progress: Progress = quiet) -> GraphModule:
    """A model's graph for a target after the passes that come before the choice of kernels, as `compile_model` makes it. Raises `PccError` as that does."""
    passes = split_pipeline(parse_pipeline(pipeline)).graph
    last = next((place for place, step in enumerate(passes) if hasattr(step, "processor")), None)
    if last is None:
        raise PccError("the pipeline has no select-kernels: there is nothing to tune")
    _check_precision([target], passes)
    progress("importing the model")
    graph = import_model(model, examples).graph
    progress("running passes")
    return _run_passes(passes[:last], graph, [refuse_unsupported], 0, _Clock())


class _Clock:
    """Wall time by step; a step that runs again adds to its time."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def add(self, step: str, seconds: float) -> None:
        self.seconds[step] = self.seconds.get(step, 0.0) + seconds

    @contextmanager
    def measure(self, step: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self.add(step, perf_counter() - start)


def _selftest(graph: GraphModule, samples: Sequence[Tensor], tolerance: float) -> SelfTest:
    """The samples and what the graph gives for them; of a graph for any batch, for a few images, all of them different."""
    if not max_batch(graph):
        taken = as_taken(graph, samples)
        return SelfTest([sample.numpy() for sample in taken], [result.numpy() for result in run_graph(graph, taken)], tolerance)
    images = [as_taken(graph, [sample.roll(image) for sample in samples]) for image in range(min(max_batch(graph), SELFTEST_IMAGES))]
    results = [run_graph(graph, image) for image in images]
    inputs, outputs = ([torch.cat(parts).numpy() for parts in zip(*tensors, strict=True)] for tensors in (images, results))
    return SelfTest(inputs, outputs, tolerance)


def _sample_inputs(model: ImportedModel) -> list[Tensor]:
    """Inputs to verify and record with, from a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    return [taken.sample(generator) for taken in model.inputs]


def _split_at_target(passes: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """Passes that are the same for every target, and those from the first on that asks for the processor or makes a type that not all compute in."""
    first = next((place for place, step in enumerate(passes) if hasattr(step, "processor") or step.name == "reduce-precision"), len(passes))
    return passes[:first], passes[first:]


@dataclass(frozen=True)
class _Chooser:
    """What chooses kernels for a target: fields of the passes that ask for the processor."""

    processor: str
    records: str
    tuned_for: str


def _choosers(targets: Sequence[Target], passes: Sequence[Any], machine_profile: str | None, tuning_records: str | None) -> dict[Target, _Chooser]:
    """The processor of each target, as `machine_named` takes it, and the tuning records: what a pass names, or as `processor_of` and `records_of` have it."""
    named, records, tuned_for = (
        next((value for step in passes if (value := getattr(step, field, ""))), None) for field in ("processor", "records", "tuned_for")
    )
    if named and machine_profile:
        raise PccError(f"the pipeline names the processor {named}, and --machine-profile {machine_profile}: leave one of them out")
    if records and tuning_records:
        raise PccError(f"the pipeline names the records {records}, and --tuning-records {tuning_records}: leave one of them out")
    if named and (wrong := [target for target in targets if target.isa != machine_named(named).isa.name]):
        raise PccError(f"the pipeline names the processor {named}, which has {machine_named(named).isa.name}, and {wrong[0].name} has {wrong[0].isa}")
    records = records_of(records or tuning_records)
    return {
        target: _Chooser(named or processor_of(target, machine_profile), records, tuned_for or processor_words(target) if records else "") for target in targets
    }


def _narrow_types(passes: Sequence[Any]) -> list[DType]:
    """The types that passes make activations."""
    return [dtype_named(step.dtype) for step in passes if step.name == "reduce-precision"]


def _is_beyond(target: Target, step: Any) -> bool:
    """Whether a pass makes activations a type that a target does not compute in: where others of the same library do, it stays with fp32."""
    return step.name == "reduce-precision" and not isa_named(target.isa).computes_in(dtype_named(step.dtype))


def _check_precision(targets: Sequence[Target], passes: Sequence[Any]) -> None:
    """`PccError` where a pass makes activations a type that a target does not compute in, and it cannot do without."""
    for step in passes:
        for target in targets:
            others = [other for other in targets if other.name == target.name and not _is_beyond(other, step)]
            if _is_beyond(target, step) and (step.ports or not others):
                narrow = dtype_named(step.dtype)
                able = [cpu for cpu, isa in (ARM_CPUS | X86_CPUS).items() if isa_named(isa).computes_in(narrow)]
                raise PccError(
                    f"{target.name}, {target.cpu} does not compute in {narrow}: give one of {', '.join(able)} as the processor (--cpu), or store weights in "
                    f"{narrow} and compute in fp32 (--weight-dtype fp16)"
                )


def _run_passes(passes: Sequence[Any], graph: GraphModule, instruments: Sequence[Instrument], done: int, clock: _Clock) -> GraphModule:
    """Runs passes that come after ``done`` others of the pipeline."""

    def numbered(instrument: Instrument) -> Instrument:
        return lambda event: instrument(replace(event, index=event.index + done))

    manager = PassManager(passes, [numbered(instrument) for instrument in instruments])
    graph = manager(graph).graph_module
    for step, seconds in manager.seconds.items():
        clock.add(step, seconds)
    return graph


def _lower(graph: GraphModule, name: str, target: Target, passes: Sequence[Any], clock: _Clock) -> Program:
    """The kernel program of a graph, with the program passes run."""
    with clock.measure("lower"):
        program = lower(graph, name, isa_named(target.isa))
    for step in passes:
        with clock.measure(step.name):
            program = step(program)
    return program


def _dump_program(folder: Path, program: Program) -> None:
    with _dumping(folder):
        (folder / "program.txt").write_text(print_program(program), encoding="utf-8")


def _dump_kernels(folder: Path, kernels: Sequence[CompiledKernel]) -> None:
    with _dumping(folder):
        for kernel in kernels:
            for suffix, text in kernel.texts.items():
                shutil.copyfile(text, folder / f"{kernel.name}.{suffix}")


@contextmanager
def _dumping(folder: Path) -> Iterator[None]:
    """A folder that is there; `PccError` if it or what the block puts there cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise PccError(f"cannot write the dump '{folder}': {error.strerror or error}") from error


def _report(
    target: Target, program: Program, kernels: Sequence[CompiledKernel], manifest: Manifest, profile: MachineProfile, chooser: _Chooser
) -> TargetReport:
    record = next(record for record in manifest.targets if record.name == target.name)
    return TargetReport(
        target=target,
        library_bytes=manifest.files[record.library].size,
        weight_bytes=record.weight_bytes,
        level_weight_bytes=lay_out_weights(program).nbytes,
        arena_bytes=program.arena_bytes,
        arena_lower_bound=memory_lower_bound(program),
        thread_bytes=program.thread_bytes,
        prepared_bytes=program.prepared_bytes,
        kernels=len(kernels),
        kernels_from_cache=sum(kernel.from_cache for kernel in kernels),
        layers=record.level(f"{target.name}, {target.cpu}").layers,
        profile=profile,
        profile_file=None if chooser.processor in MACHINES else Path(chooser.processor),
        records_file=Path(chooser.records) if chooser.records else None,
    )
