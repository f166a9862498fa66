"""The driver of ``pcc explain``: what chooses the kernels of a network, and what pruning its layers would bring, before
anything is compiled or trained."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch.fx import GraphModule

from pcc.codegen.gpu_backend import backend_named
from pcc.codegen.machine import Machine
from pcc.codegen.machine_profile import MachineProfile
from pcc.codegen.processor import Processor, processor_named
from pcc.errors import PccError
from pcc.frontend.imported import import_model
from pcc.frontend.supported import refuse_unsupported
from pcc.package.layer_report import LayerReport, graph_reports
from pcc.package.manifest import LevelRecord
from pcc.package.read import Package
from pcc.passes.instruments import NotePruning
from pcc.passes.pipeline import insert_pruning, parse_pipeline, print_pipeline, prunes, split_pipeline
from pcc.planner import (
    Clock,
    GpuPlan,
    check_precision,
    choosers,
    gpu_steps,
    leave_to_processor,
    lower_program,
    place_of_choice,
    run_passes,
    steps_for,
)
from pcc.progress import Progress, quiet
from pcc.report.pruning_prices import LayerPrices, pruning_prices
from pcc.target import Gpu, Target, host_target

DEFAULT_PRUNING = "pattern,connectivity"
"""What is priced where nobody asks for another structure."""

DEFAULT_GPU_PRUNING = "pattern,connectivity{share=4}"
"""On a GPU, where only sharing by four filters wins in memory, too (docs/gpu.md)."""


@dataclass(frozen=True)
class Explanation:
    """A network's layers for a processor or a GPU, and what pruning them would bring."""

    target: str
    cpu: str
    """Or a GPU, ``opencl:adreno-6xx``."""
    profile: Mapping[str, Any] | None
    """The costs, a `MachineProfile` as JSON has it, or a GPU's name and their origin: that of a package may be another
    pcc's. None of an old package."""
    layers: Sequence[LayerReport]
    """Of a model: all calls of the graph. Of a package: its layers as the manifest has them."""
    pruning: str = ""
    """The passes whose rates are priced; nothing for a package, whose weights lie in its library."""
    prices: Mapping[str, LayerPrices] = field(default_factory=dict)
    """By the node's name."""
    warnings: Sequence[str] = ()

    @property
    def is_of_gpu(self) -> bool:
        return ":" in self.cpu


def explain_model(
    model: Any,
    examples: Any,
    *,
    target: Target,
    pipeline: str,
    machine_profile: str | None = None,
    tuning_records: str | None = None,
    progress: Progress = quiet,
) -> Explanation:
    """Runs a pipeline up to the choice of kernels, and prices the layers at several rates of what its passes prune, or
    of `DEFAULT_PRUNING`.

    For a GPU where the target has one, with a single profile. The arguments are those of `pcc.compiler.compile_model`.
    Raises `PccError` as that does.
    """
    asked = split_pipeline(parse_pipeline(pipeline)).graph
    select = place_of_choice(asked, "explain")
    if target.gpu is None:
        chooser = choosers([target], asked, machine_profile, tuning_records)[target]
        check_precision([target], asked)
        explained, processor = target.cpu, processor_named(chooser.processor)
        steps: Callable[[Sequence[Any]], list[Any]] = partial(steps_for, target, chooser=chooser)
    else:
        profile = _only_profile(target.gpu)
        if machine_profile:
            raise PccError(f"--machine-profile {machine_profile} is a processor's: leave it out for a GPU")
        explained, processor = f"{target.gpu.interface}:{profile}", processor_named(profile)
        steps = partial(gpu_steps, interface=target.gpu.interface, profile=profile, tuning_records=tuning_records)
    pruning = [step for step in asked if prunes(step)]
    if not pruning:
        usual = DEFAULT_PRUNING if target.gpu is None else DEFAULT_GPU_PRUNING
        pruning = [step for step in parse_pipeline(insert_pruning(pipeline, usual)) if prunes(step)]
    first = next((place for place, step in enumerate(asked[:select]) if prunes(step)), select)

    progress("importing the model")
    graph, clock, noted = import_model(model, examples).graph, Clock(), NotePruning()
    progress("running passes")
    graph = run_passes(steps(asked[:first]), graph, [refuse_unsupported], 0, clock)
    unpruned = [step for step in asked[first:select] if not prunes(step)]
    dense = run_passes(steps(unpruned), copy.deepcopy(graph), [], first, clock)
    of_processor = copy.deepcopy(graph) if target.gpu else None
    chosen = run_passes(steps(asked[first:]), graph, [refuse_unsupported, noted], first, clock)
    if of_processor is not None:
        progress("choosing between the GPU and the processor")
        chosen = _placed(chosen, of_processor, target, pipeline, asked[first:], tuning_records, clock)
    progress("pricing rates")
    prices = pruning_prices(dense, pruning, processor)
    return Explanation(
        target.name,
        explained,
        _costs(processor),
        graph_reports(chosen),
        print_pipeline(pruning),
        prices,
        noted.warnings,
    )


def _placed(
    chosen: GraphModule,
    graph: GraphModule,
    target: Target,
    pipeline: str,
    passes: Sequence[Any],
    tuning_records: str | None,
    clock: Clock,
) -> GraphModule:
    """The graph for a GPU with what is left to the processor; ``graph`` is the one before the ``passes``."""
    assert target.gpu is not None
    chooser = choosers([target], passes, None, tuning_records)[target]
    of_processor = run_passes(steps_for(target, passes, chooser), graph, [], 0, clock)
    program = lower_program(of_processor, "net", target, split_pipeline(parse_pipeline(pipeline)).program, clock)
    plan = GpuPlan(chosen, backend_named(target.gpu.interface).lower(chosen, "net"))
    return leave_to_processor(plan, _only_profile(target.gpu), target, of_processor, program, chooser).graph


def _only_profile(gpu: Gpu) -> str:
    profile, *others = gpu.profiles
    if others:
        raise PccError(f"explain for one family of GPUs at a time, not for {', '.join(gpu.profiles)}")
    return profile


def _costs(processor: Processor) -> Mapping[str, Any]:
    if isinstance(processor, Machine):
        return MachineProfile.of(processor).model_dump()
    return {"name": processor.name, "origin": processor.origin}


def explain_package(package: Package, names: Sequence[str], cpus: Sequence[str], gpu: Gpu | None = None) -> Explanation:
    """What a package's manifest says, of the first of its libraries' codes that fits the targets and processors, or the
    GPU; `PccError` where none does."""
    cpus = [host_target().cpu if cpu == "native" else cpu for cpu in cpus]
    if gpu is not None:
        profile = _only_profile(gpu)
        for record in package.manifest.targets:
            for program in record.gpu.programs if record.gpu and (not names or record.name in names) else ():
                if program.profile == profile and (not cpus or program.cpu in (None, *cpus)):
                    return Explanation(record.name, f"{gpu.interface}:{profile}", None, program.layers)
        raise PccError(f"{package.path} has no code for {' '.join([*names, *cpus, f'{gpu.interface}:{profile}'])}")
    levels: list[tuple[str, LevelRecord]] = [
        (record.name, level) for record in package.manifest.targets for level in (*record.better, record)
    ]
    for name, level in levels:
        if (not names or name in names) and (not cpus or level.cpu in cpus):
            return Explanation(name, level.cpu, level.profile, level.layers)
    raise PccError(
        f"{package.path} has no code for {' '.join([*names, *cpus])}, only for "
        f"{'; '.join(f'{name}, {level.cpu}' for name, level in levels)}"
    )
