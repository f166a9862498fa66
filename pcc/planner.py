"""What is decided before any machine code is made: which passes run for which target, by whose costs, and the graph and
kernel program they come to."""

import copy
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from torch.fx import GraphModule

from pcc.codegen.gpu_backend import backend_named
from pcc.codegen.host_program import HostCalls, HostProgram
from pcc.codegen.isa import isa_named
from pcc.codegen.lower import lower
from pcc.codegen.machine import costs_per_second
from pcc.codegen.machine_profile import machine_named, processor_of
from pcc.codegen.place_layers import Sides, place_layers
from pcc.codegen.print_program import print_program
from pcc.codegen.program import Program
from pcc.codegen.tuning_records import TuningRecords, records_of
from pcc.config import gpu_words, processor_words
from pcc.dtype import DType, dtype_named
from pcc.errors import PccError, suggestion
from pcc.frontend.imported import import_model
from pcc.frontend.supported import refuse_unsupported
from pcc.ir.annotations import annotate
from pcc.ir.printer import print_graph
from pcc.passes.manager import Instrument, PassManager
from pcc.passes.pipeline import parse_pipeline, split_pipeline
from pcc.progress import Progress, quiet
from pcc.target import ARM_CPUS, X86_CPUS, Target


class Clock:
    """Wall time by step; a step that runs again adds to its time."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def add(self, step: str, seconds: float) -> None:
        self.seconds[step] = self.seconds.get(step, 0.0) + seconds

    @contextmanager
    def measure(self, step: str) -> Generator[None]:
        start = perf_counter()
        yield
        self.add(step, perf_counter() - start)


def split_at_target(passes: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """Passes that are the same for every target, and those from the first on that asks for the processor or makes a
    type that not all compute in."""
    first = next(
        (place for place, step in enumerate(passes) if hasattr(step, "processor") or step.name == "reduce-precision"),
        len(passes),
    )
    return passes[:first], passes[first:]


@dataclass(frozen=True)
class Chooser:
    """What chooses kernels for a target: fields of the passes that ask for the processor."""

    processor: str
    records: str
    tuned_for: str


def choosers(
    targets: Sequence[Target], passes: Sequence[Any], machine_profile: str | None, tuning_records: str | None
) -> dict[Target, Chooser]:
    """The processor of each target, as `machine_named` takes it, and the tuning records: what a pass names, or as
    `processor_of` and `records_of` have it."""
    named, records, tuned_for = (
        next((value for step in passes if (value := getattr(step, field, ""))), None)
        for field in ("processor", "records", "tuned_for")
    )
    if named and machine_profile:
        raise PccError(
            f"the pipeline names the processor {named}, and --machine-profile {machine_profile}: leave one of them out"
        )
    if records and tuning_records:
        raise PccError(
            f"the pipeline names the records {records}, and --tuning-records {tuning_records}: leave one of them out"
        )
    if named and (wrong := [target for target in targets if target.isa != machine_named(named).isa.name]):
        raise PccError(
            f"the pipeline names the processor {named}, which has {machine_named(named).isa.name}, and {wrong[0].name} "
            f"has {wrong[0].isa}"
        )
    records = records_of(records or tuning_records)
    return {
        target: Chooser(
            named or processor_of(target, machine_profile),
            records,
            tuned_for or processor_words(target) if records else "",
        )
        for target in targets
    }


def narrow_types(passes: Sequence[Any]) -> list[DType]:
    """The types that passes make activations."""
    return [dtype_named(step.dtype) for step in passes if step.name == "reduce-precision"]


def _is_beyond(target: Target, step: Any) -> bool:
    """Whether a pass makes activations a type that a target does not compute in: where others of the same library do,
    or its GPU, it stays with fp32."""
    return step.name == "reduce-precision" and not isa_named(target.isa).computes_in(dtype_named(step.dtype))


def check_precision(targets: Sequence[Target], passes: Sequence[Any]) -> None:
    """`PccError` where a pass makes activations a type that a target does not compute in, and it cannot do without."""
    for step in passes:
        for target in targets:
            others = [other for other in targets if other.name == target.name and not _is_beyond(other, step)]
            if _is_beyond(target, step) and (step.ports or not (others or target.gpu)):
                narrow = dtype_named(step.dtype)
                able = [cpu for cpu, isa in (ARM_CPUS | X86_CPUS).items() if isa_named(isa).computes_in(narrow)]
                raise PccError(
                    f"{target.name}, {target.cpu} does not compute in {narrow}: give one of {', '.join(able)} as the "
                    "processor (--cpu), or store weights in "
                    f"{narrow} and compute in fp32 (--weight-dtype fp16)"
                )


def steps_for(target: Target, passes: Sequence[Any], chooser: Chooser) -> list[Any]:
    """The passes as they run for a target: told what chooses its kernels, and without those that make a type that it
    does not compute in."""
    known = vars(chooser)
    return [
        replace(step, **{field: value for field, value in known.items() if hasattr(step, field)})
        for step in passes
        if not _is_beyond(target, step)
    ]


def gpu_steps(passes: Sequence[Any], interface: str, profile: str, tuning_records: str | None) -> list[Any]:
    """Those that follow `split_at_target`'s first part as they run for a GPU of a profile: what was measured on one
    chooses kernels (``tuning_records`` as `records_of` takes it, or a pass names it), else costs."""
    named = next((value for step in passes if (value := getattr(step, "records", ""))), None)
    known = vars(_gpu_chooser(interface, profile, records_of(named or tuning_records)))
    return [replace(step, **{field: known[field] for field in known if hasattr(step, field)}) for step in passes]


def _gpu_chooser(interface: str, profile: str, records: str) -> Chooser:
    """What chooses kernels for a family of GPUs; `PccError` for records of several of its devices."""
    if records:
        with TuningRecords(Path(records), read_only=True) as opened:
            of_profile = gpu_words(interface, profile)
            devices = [name for name in opened.processors() if name.startswith(of_profile)]
        if len(devices) > 1:
            raise PccError(
                f"tuning records {records} were measured on several devices of {interface}:{profile} "
                f"({', '.join(devices)}): keep those of each in a file, and name it with --tuning-records"
            )
        if devices:
            return Chooser(profile, records, devices[0])
    return Chooser(profile, "", "")


def run_passes(
    passes: Sequence[Any], graph: GraphModule, instruments: Sequence[Instrument], done: int, clock: Clock
) -> GraphModule:
    """Runs passes that come after ``done`` others of the pipeline."""

    def numbered(instrument: Instrument) -> Instrument:
        return lambda event: instrument(replace(event, index=event.index + done))

    manager = PassManager(passes, [numbered(instrument) for instrument in instruments])
    graph = manager(graph).graph_module
    for step, seconds in manager.seconds.items():
        clock.add(step, seconds)
    return graph


def lower_program(graph: GraphModule, name: str, target: Target, passes: Sequence[Any], clock: Clock) -> Program:
    """The kernel program of a graph, with the program passes run."""
    with clock.measure("lower"):
        program = lower(graph, name, isa_named(target.isa))
    for step in passes:
        with clock.measure(step.name):
            program = step(program)
    return program


@dataclass(frozen=True)
class GpuPlan:
    """A graph for a family of GPUs, and its program."""

    graph: GraphModule
    program: Program[Any]
    host: HostProgram | None = None
    """The processor's program, whose steps it calls; None where it calls none."""


def leave_to_processor(
    gpu: GpuPlan, profile: str, target: Target, graph: GraphModule, program: Program, chooser: Chooser
) -> GpuPlan:
    """The plan for a GPU, with the layers left to the processor that it is better at or that the target names; ``gpu``
    itself where there are none. ``graph`` and ``program`` are the processor's. `PccError` for layers that cannot be
    left to it."""
    assert target.gpu is not None
    backend, host = backend_named(target.gpu.interface), HostProgram(program, target.isa)
    machine = machine_named(chooser.processor)
    sides = Sides(gpu.graph, gpu.program, graph, host, machine, costs_per_second(target))
    left = place_layers(sides, backend, profile, target.gpu.on_cpu)
    if not left:
        return gpu
    tensors = {id(tensor): tensor for tensor in (*gpu.graph.parameters(), *gpu.graph.buffers())}
    with_places = copy.deepcopy(gpu.graph, memo=tensors)  # which it shares
    for node in with_places.graph.nodes:
        if node.name in left:
            annotate(node, left[node.name])
    return GpuPlan(with_places, backend.lower(with_places, program.name, HostCalls(host, frozenset(left))), host)


def place_of_choice(passes: Sequence[Any], aim: str) -> int:
    """Where in a pipeline kernels are chosen; `PccError` where they are not and there is nothing to ``aim``: tune,
    explain."""
    place = next((place for place, step in enumerate(passes) if hasattr(step, "processor")), None)
    if place is None:
        raise PccError(f"the pipeline has no select-kernels: there is nothing to {aim}")
    return place


def open_graph(model: Any, examples: Any, pipeline: str, target: Target, progress: Progress = quiet) -> GraphModule:
    """A model's graph for a target, or its GPU where it has one, after the passes that come before the choice of
    kernels, as `compile_model` makes it. Raises `PccError` as that does."""
    passes = split_pipeline(parse_pipeline(pipeline)).graph
    last = place_of_choice(passes, "tune")
    if target.gpu is None:
        check_precision([target], passes)
    progress("importing the model")
    graph = import_model(model, examples).graph
    progress("running passes")
    return run_passes(passes[:last], graph, [refuse_unsupported], 0, Clock())


Stage = GraphModule | Program

IMPORTED, PROGRAM = "import", "program"
"""Stages that no pass of the graph makes: what the frontend gives, and the kernel program."""


def stage_names(pipeline: str) -> list[str]:
    """The stages that a pipeline goes through, in order."""
    steps = split_pipeline(parse_pipeline(pipeline))
    return [IMPORTED, *(step.name for step in steps.graph), *([PROGRAM] if steps.program else [])]


def plan_stage(
    model: Any,
    examples: Any,
    *,
    name: str,
    target: Target,
    pipeline: str,
    stage: str,
    machine_profile: str | None = None,
    tuning_records: str | None = None,
    progress: Progress = quiet,
) -> Stage:
    """A model after a stage of `stage_names`; after the last pass of that name. The other arguments are those of
    `pcc.compiler.compile_model`."""
    steps, names = split_pipeline(parse_pipeline(pipeline)), stage_names(pipeline)
    if stage not in names:
        raise PccError(f"the pipeline has no stage '{stage}': {suggestion(stage, tuple(dict.fromkeys(names)))}")
    last = len(steps.graph) if stage == PROGRAM else len(names) - 1 - names[::-1].index(stage)
    chooser = choosers([target], steps.graph, machine_profile, tuning_records)[target]
    check_precision([target], steps.graph)
    progress("importing the model")
    graph, clock = import_model(model, examples).graph, Clock()
    progress("running passes")
    graph = run_passes(steps_for(target, steps.graph[:last], chooser), graph, [refuse_unsupported], 0, clock)
    return lower_program(graph, name, target, steps.program, clock) if stage == PROGRAM else graph


def print_stage(stage: Stage) -> str:
    """The text of a stage, as the files of ``--dump-ir`` have it."""
    return print_graph(stage) if isinstance(stage, GraphModule) else print_program(stage)
