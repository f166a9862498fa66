"""The driver of ``pcc explain``: what chooses the kernels of a network, and what pruning its layers would bring, before
anything is compiled or trained."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pcc.codegen.machine_profile import MachineProfile, machine_named
from pcc.errors import PccError
from pcc.frontend.imported import import_model
from pcc.frontend.supported import refuse_unsupported
from pcc.package.layer_report import LayerReport, graph_reports
from pcc.package.manifest import LevelRecord
from pcc.package.read import Package
from pcc.package.toolchain import Progress, quiet
from pcc.passes.instruments import NotePruning
from pcc.passes.pipeline import insert_pruning, parse_pipeline, print_pipeline, prunes, split_pipeline
from pcc.planner import Clock, check_precision, choosers, place_of_choice, run_passes, steps_for
from pcc.report.pruning_prices import LayerPrices, pruning_prices
from pcc.target import Target

DEFAULT_PRUNING = "pattern,connectivity"
"""What is priced where nobody asks for another structure."""


@dataclass(frozen=True)
class Explanation:
    """A network's layers for a processor, and what pruning them would bring."""

    target: str
    cpu: str
    profile: Mapping[str, Any] | None
    """The costs, a `MachineProfile` as JSON has it: that of a package may be another pcc's. None of an old package."""
    layers: Sequence[LayerReport]
    """Of a model: all calls of the graph. Of a package: its layers as the manifest has them."""
    pruning: str = ""
    """The passes whose rates are priced; nothing for a package, whose weights lie in its library."""
    prices: Mapping[str, LayerPrices] = field(default_factory=dict)
    """By the node's name."""
    warnings: Sequence[str] = ()


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

    The arguments are those of `pcc.compiler.compile_model`. Raises `PccError` as that does.
    """
    asked = split_pipeline(parse_pipeline(pipeline)).graph
    select = place_of_choice(asked, "explain")
    chooser = choosers([target], asked, machine_profile, tuning_records)[target]
    check_precision([target], asked)
    pruning = [step for step in asked if prunes(step)]
    if not pruning:
        pruning = [step for step in parse_pipeline(insert_pruning(pipeline, DEFAULT_PRUNING)) if prunes(step)]
    first = next((place for place, step in enumerate(asked[:select]) if prunes(step)), select)

    progress("importing the model")
    graph, clock, noted = import_model(model, examples).graph, Clock(), NotePruning()
    progress("running passes")
    graph = run_passes(steps_for(target, asked[:first], chooser), graph, [refuse_unsupported], 0, clock)
    unpruned = [step for step in asked[first:select] if not prunes(step)]
    dense = run_passes(steps_for(target, unpruned, chooser), copy.deepcopy(graph), [], first, clock)
    chosen = run_passes(steps_for(target, asked[first:], chooser), graph, [refuse_unsupported, noted], first, clock)
    progress("pricing rates")
    machine = machine_named(chooser.processor)
    prices = pruning_prices(dense, pruning, machine)
    profile = MachineProfile.of(machine).model_dump()
    return Explanation(
        target.name, target.cpu, profile, graph_reports(chosen), print_pipeline(pruning), prices, noted.warnings
    )


def explain_package(package: Package, names: Sequence[str], cpus: Sequence[str]) -> Explanation:
    """What a package's manifest says, of the first of its libraries' codes that fits the targets and processors;
    `PccError` where none does."""
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
