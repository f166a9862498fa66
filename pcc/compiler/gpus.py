"""What a package has for GPUs: a graph and a program for each family of them, and the processor's part in it."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch.fx import GraphModule

from pcc.codegen.gpu_backend import backend_named
from pcc.codegen.program import Program
from pcc.compiler.dumps import dump_gpu
from pcc.compiler.verify import timed
from pcc.package.spec import GpuBuild
from pcc.passes.instruments import DumpAfterEach, VerifyEach
from pcc.passes.manager import Instrument
from pcc.passes.pipeline import SplitPipeline
from pcc.planner import Chooser, Clock, GpuPlan, gpu_steps, leave_to_processor, run_passes, split_at_target
from pcc.progress import Progress
from pcc.target import Target


def plan_gpus(
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
                *timed(copy.copy(verifier) if is_new else None, clock),
            ],
            len(shared),
            clock,
        )
        with clock.measure(f"kernels for {interface}"):
            plans[place] = GpuPlan(of_gpu, backend_named(interface).lower(of_gpu, name))
    return plans


def build_gpus(
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
                    dump_gpu(folder, serving[folder], backend_named(interface).suffix, roots, dump_ir)
            builds[target].append(serving[folder])
    return builds


def _gpu_folders(target: Target) -> list[Path]:
    """``gpu/INTERFACE/PROFILE`` for each program that a target's library has for GPUs."""
    return [Path("gpu", target.gpu.interface, profile) for profile in target.gpu.profiles] if target.gpu else []
